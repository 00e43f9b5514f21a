"""Heads or a trained baseline: how a recipe's problem, features and model are made."""

from __future__ import annotations

from collections.abc import Sequence

from pfm_jax import baselines
from pfm_jax.backbones.networks import Networks
from pfm_jax.baselines import learned
from pfm_jax.baselines.features import Memory
from pfm_jax.config import Config
from pfm_jax.methods import Trained
from pfm_jax.model import problem as mapping
from pfm_jax.model.features import feature_channels
from pfm_jax.model.folded import FoldedHeads, fold
from pfm_jax.model.problem import Extent, Problem
from pfm_jax.training import cache
from pfm_jax.training.cache import FeatureCache
from pfm_jax.training.step import TrainState, init_state
from pfm_jax.types import Example


def is_trained(config: Config) -> bool:
    """Whether a recipe is trained step by step; the other baselines are fitted at once."""
    return config.baseline is None or isinstance(config.baseline, Trained)


def make_problem(config: Config) -> Problem:
    """The problem of training a recipe. Raises InputError: no such network or stage."""
    return (
        mapping.make_problem(config) if config.baseline is None else baselines.make_problem(config)
    )


def fresh_state(config: Config, networks: Networks, extent: Extent) -> TrainState:
    """A run of a recipe before its first step."""
    channels = feature_channels(networks, config.levels) if config.baseline is None else {}
    return init_state(config.seed, channels, make_problem(config), extent)


def build_cache(
    config: Config, networks: Networks, examples: Sequence[Example], room: int = 0
) -> FeatureCache:
    """Makes the cache that a recipe is trained on; `room` as of `cache.build_cache`."""
    if config.baseline is not None:
        return baselines.build_cache(networks, examples, config)
    cut = make_problem(config).tiles
    return cache.build_cache(networks, examples, cut, config.levels, room=room)


def model_of(state: TrainState, config: Config) -> FoldedHeads | Memory:
    """The model of a detector, of a trained run."""
    return fold(state.heads) if config.baseline is None else learned.kept(state.heads)
