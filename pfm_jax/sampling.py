"""Which positions a step sees.

That follows from the key and the step alone: a resumed run sees what an undisturbed one would
have seen, and a cache on disk gives what a cache on the device gives.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from pfm_jax.cache import FeatureCache
from pfm_jax.config import TrainConfig
from pfm_jax.types import Batch, FeaturePair

Sizes = tuple[tuple[str, int], ...]
"""Each level and its number of rows, sorted."""


def sizes(cache: FeatureCache) -> Sizes:
    """How many rows each level of a cache has."""
    return tuple(sorted((level, rows.shape[0]) for level, rows in cache.rows.source.items()))


def draw(
    key: Array, step: Array, sizes: Sizes, num_images: int, config: TrainConfig
) -> tuple[dict[str, Array], dict[str, Array]]:
    """The rows `[P]` of each level that a step sees, and their masks `[P]`.

    Positions are drawn uniformly with replacement. Images: every image once an epoch, in a new
    order each epoch, the last batch padded.

    Args:
        key: is folded with what the draw depends on.
        step: the step's number.
        sizes: of the caches.
        num_images: that the rows belong to.
        config: what to draw.
    """
    rows, masks = {}, {}
    if config.sampling == "positions":
        key = jax.random.fold_in(key, step)
        for index, (level, size) in enumerate(sizes):
            shape = (config.positions[level],)
            rows[level] = jax.random.randint(jax.random.fold_in(key, index), shape, 0, size)
            masks[level] = jnp.ones(shape)
        return rows, masks
    batches = -(-num_images // config.batch_size)
    order = jax.random.permutation(jax.random.fold_in(key, step // batches), num_images)
    slots = (step % batches) * config.batch_size + jnp.arange(config.batch_size)
    images, real = order[slots % num_images], (slots < num_images).astype(jnp.float32)
    for level, size in sizes:
        positions = size // num_images
        rows[level] = (images[:, None] * positions + jnp.arange(positions)[None]).reshape(-1)
        masks[level] = jnp.repeat(real, positions)
    return rows, masks


def pick(features: FeaturePair, rows: dict[str, Array]) -> FeaturePair:
    """The chosen rows of every level, of NumPy or JAX arrays."""
    return FeaturePair(
        {level: features.source[level][index] for level, index in rows.items()},
        {level: features.target[level][index] for level, index in rows.items()},
    )


@functools.partial(jax.jit, static_argnames=("steps", "sizes", "num_images", "config"))
def _draw_many(
    key: Array, first: Array, steps: int, sizes: Sizes, num_images: int, config: TrainConfig
) -> tuple[dict[str, Array], dict[str, Array]]:
    def one(step: Array) -> tuple[dict[str, Array], dict[str, Array]]:
        return draw(key, step, sizes, num_images, config)

    return lax.map(one, first + jnp.arange(steps))


def gather(cache: FeatureCache, key: Array, first: Array, steps: int, config: TrainConfig) -> Batch:
    """What the `steps` steps from `first` on see of a cache on host or disk, `[steps, P, ...]`."""
    rows, masks = _draw_many(key, first, steps, sizes(cache), cache.num_images, config)
    return Batch(pick(cache.rows, jax.tree.map(np.asarray, rows)), masks)
