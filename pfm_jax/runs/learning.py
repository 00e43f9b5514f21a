"""Heads or a trained baseline: how a recipe's problem, features and model are made."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from pfm_jax import baselines
from pfm_jax.backbones.networks import Networks
from pfm_jax.baselines import learned
from pfm_jax.baselines.features import collected
from pfm_jax.config import Config
from pfm_jax.inference.detector import Model
from pfm_jax.methods import IMAGES, Trained
from pfm_jax.model import patches, tiles
from pfm_jax.model.features import feature_channels
from pfm_jax.model.folded import fold
from pfm_jax.model.problem import Problem, make_extent, mapping_problem
from pfm_jax.model.scoring import MappingModel
from pfm_jax.system import devices
from pfm_jax.training import cache
from pfm_jax.training.cache import FeatureCache
from pfm_jax.training.step import TrainState, init_state
from pfm_jax.types import Example, Pair


def is_trained(config: Config) -> bool:
    """Whether a recipe is trained step by step; the other baselines are fitted at once."""
    return config.baseline is None or isinstance(config.baseline, Trained)


def make_problem(config: Config) -> Problem:
    """The problem of training a recipe. Raises InputError: no such network or stage."""
    if config.baseline is None:
        return mapping_problem(config)
    method, network, side = config.baseline, config.networks.source, config.data.image_size
    objective = baselines.LEARNT[method.method].objective(method, network, side)
    cut = tiles.training_tiles(config.data)
    train = dataclasses.replace(config.train, precision="float32")
    return Problem(config.mapping, train, cut, ((IMAGES, 1),), objective)


def fresh_state(config: Config, networks: Networks, num_images: int) -> TrainState:
    """A run of a recipe, on so many images, before its first step."""
    problem = make_problem(config)
    channels = feature_channels(networks, config.levels) if config.baseline is None else {}
    return init_state(config.seed, channels, problem, make_extent(problem, num_images))


def build_cache(
    config: Config, networks: Networks, examples: Sequence[Example], room: int = 0
) -> FeatureCache:
    """Makes the cache that a recipe is trained on; `room` as of `cache.build_cache`.

    Raises InputError: an image that can't be read, or more features than there is memory for.
    """
    if config.baseline is not None:
        return _whole_images(config, networks, examples, room)
    cut, spec = tiles.training_tiles(config.data), patches.memory_spec(config)
    return cache.build_cache(networks, examples, cut, config.levels, room=room, memory=spec)


def _whole_images(
    config: Config, networks: Networks, examples: Sequence[Example], room: int
) -> FeatureCache:
    """Pixels of every image, uint8 `[N, S * S * 3]`, and what a baseline learns of it, `[N, T]`.

    Pixels are `[N, 0]` for a baseline that sees none.
    """
    method = baselines.settings(config)
    learnt = baselines.LEARNT[method.method]

    def of_batch(images: Any) -> dict[str, Array]:
        pixels = jnp.asarray(images).reshape(images.shape[0], -1)
        target = learnt.targets(networks.source, images, method)
        return {"source": pixels if learnt.pixels else pixels[:, :0], "target": target}

    capacity = cache.capacity(max(len(examples), room))
    found = collected(of_batch, examples, config.data.image_size, capacity)
    rows: Any = {IMAGES: Pair(found["source"], found["target"])}
    if cache.choose_place(devices.tree_bytes(rows)) == "device":
        return FeatureCache(devices.replicate(rows), "device")
    return FeatureCache(rows, "host")


def candidates_of(config: Config, networks: Networks, examples: Sequence[Example]) -> np.ndarray:
    """Candidates for the memory of a recipe that has one, without features to train on.

    Raises InputError: an image that can't be read.
    """
    cut, spec = tiles.training_tiles(config.data), patches.memory_spec(config)
    found = cache.build_cache(networks, examples, cut, (), memory=spec).candidates
    assert found is not None
    return found


def model_of(config: Config, state: TrainState, memory: np.ndarray | None) -> Model:
    """The model of a detector, of a trained run and its memory, on every device."""
    if config.baseline is not None:
        return learned.kept(state.heads)
    kept: Any = memory
    return devices.replicate(MappingModel(fold(devices.fetch(state.heads)), kept))
