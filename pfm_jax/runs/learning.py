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
from pfm_jax.baselines.features import Memory, collected
from pfm_jax.config import Config
from pfm_jax.methods import IMAGES, Trained
from pfm_jax.model import patches, tiles
from pfm_jax.model import problem as mapping
from pfm_jax.model.features import feature_channels
from pfm_jax.model.folded import fold
from pfm_jax.model.problem import Extent, Problem
from pfm_jax.model.scoring import Mapping
from pfm_jax.system import devices
from pfm_jax.training import cache, memory
from pfm_jax.training.cache import FeatureCache
from pfm_jax.training.step import TrainState, init_state
from pfm_jax.types import Example, Pair


def is_trained(config: Config) -> bool:
    """Whether a recipe is trained step by step; the other baselines are fitted at once."""
    return config.baseline is None or isinstance(config.baseline, Trained)


def make_problem(config: Config) -> Problem:
    """The problem of training a recipe. Raises InputError: no such network or stage."""
    if config.baseline is None:
        return mapping.make_problem(config)
    method, network, side = config.baseline, config.networks.source, config.data.image_size
    objective = baselines.LEARNT[method.method].objective(method, network, side)
    cut = tiles.training_tiles(config.data)
    train = dataclasses.replace(config.train, precision="float32")
    return Problem(config.mapping, train, cut, ((IMAGES, 1),), objective)


def fresh_state(config: Config, networks: Networks, extent: Extent) -> TrainState:
    """A run of a recipe before its first step."""
    channels = feature_channels(networks, config.levels) if config.baseline is None else {}
    return init_state(config.seed, channels, make_problem(config), extent)


def build_cache(
    config: Config, networks: Networks, examples: Sequence[Example], room: int = 0
) -> FeatureCache:
    """Makes the cache that a recipe is trained on; `room` as of `cache.build_cache`.

    Raises InputError: an image that can't be read, or more features than there is memory for.
    """
    if config.baseline is not None:
        return _whole_images(config, networks, examples, room)
    cut, own = tiles.training_tiles(config.data), patches.remembered(config)
    return cache.build_cache(networks, examples, cut, config.levels, room=room, remembered=own)


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


def patches_of(
    config: Config, networks: Networks, examples: Sequence[Example]
) -> np.ndarray | None:
    """Patches that a run's memory is chosen of, without the features that it was trained on.

    None if it has none. Raises InputError: an image that can't be read.
    """
    own = patches.remembered(config)
    cut = tiles.training_tiles(config.data)
    return own and cache.build_cache(networks, examples, cut, (), remembered=own).patches


def model_of(
    state: TrainState, config: Config, seen: np.ndarray | None, room: int = 0
) -> Mapping | Memory:
    """The model of a detector, of a run trained on images whose patches were `seen`.

    `room` as of `memory.fit`.
    """
    if config.baseline is not None:
        return learned.kept(state.heads)
    heads = devices.replicate(fold(devices.fetch(state.heads)))
    return Mapping(heads, None if seen is None else memory.fit(seen, config.seed, room))
