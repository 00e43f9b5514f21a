"""Training on made-up features: a cache, a problem and fresh runs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from pfm_jax import training as train
from pfm_jax.config import Config
from pfm_jax.model.problem import Problem, make_extent, mapping_problem
from pfm_jax.sweeps.plan import replaced
from pfm_jax.training.cache import FeatureCache
from pfm_jax.types import Pair
from tests.synthetic import LEVELS

CHANNELS = {"conv2_x": Pair(6, 6), "conv3_x": Pair(8, 8), "conv4_x": Pair(10, 10)}
SIZE = 32
ROWS = {"conv2_x": 64, "conv3_x": 16, "conv4_x": 4}  # of an image of that size


def make_cache(num_images: int = 5, place: str = "device") -> FeatureCache:
    rng = np.random.default_rng(0)

    def rows(level: str, channels: int) -> np.ndarray:
        values = rng.random((num_images * ROWS[level], channels))
        return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float16)

    pairs = {k: Pair(*(rows(k, channels) for channels in CHANNELS[k])) for k in LEVELS}
    if place == "device":
        pairs = jax.tree.map(jnp.asarray, pairs)
    return FeatureCache(pairs, place)


def problem_of(config: Config) -> Problem:
    return mapping_problem(replaced(config, {"data.image_size": SIZE}))


def fresh(
    problem: Problem, *seeds: int, num_images: int = 5, first: int = 0
) -> list[train.TrainState]:
    """Runs on `num_images` images of a cache, from the `first` on."""
    extents = (make_extent(problem, num_images, first) for _ in seeds or (0,))
    return [
        train.init_state(seed, CHANNELS, problem, extent)
        for seed, extent in zip(seeds or (0,), extents, strict=True)
    ]


def leaves(state: train.TrainState) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves((state.heads, state.opt_state))]
