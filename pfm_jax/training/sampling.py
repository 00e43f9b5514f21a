"""Positions of a training step.

The draw follows from the key and the step alone: a resumed run sees what an undisturbed one would
have seen, and a cache on disk gives what a cache on the device gives.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pfm_jax.model.problem import Extent, Problem
from pfm_jax.types import Batch, Features, level_number

Indices = dict[str, Array]
"""Level -> indices of rows of the cached features, `[P]`."""

Masks = dict[str, Array]
"""Level -> 1 for a real row, 0 for padding, `[P]`."""


def draw(
    key: Array, step: Array, extent: Extent, problem: Problem, num_tiles: int
) -> tuple[Indices, Masks]:
    """Draws the rows `[P]` of each level that a step sees, and their masks `[P]`.

    Positions are drawn uniformly with replacement, independently of which other levels there are.
    Images: every image once an epoch, in a new order each epoch, the last batch padded.

    `extent` is the run's part of the cache's `num_tiles` tiles, on which the draw does not depend.
    """
    if problem.train.sampling == "positions":
        rows, masks = _draw_positions(key, step, extent, problem)
    else:
        rows, masks = _draw_images(key, step, extent, problem, num_tiles)
    positions = dict(problem.positions)
    return {k: r + extent.first_tile * positions[k] for k, r in rows.items()}, masks


def _draw_positions(
    key: Array, step: Array, extent: Extent, problem: Problem
) -> tuple[Indices, Masks]:
    rows, masks, key = {}, {}, jax.random.fold_in(key, step)
    for level, positions in problem.positions:
        own, shape = jax.random.fold_in(key, level_number(level)), rows_drawn(level, problem)
        rows[level] = jax.random.randint(own, (shape,), 0, extent.num_tiles * positions)
        masks[level] = jnp.ones(shape)
    return rows, masks


def _draw_images(
    key: Array, step: Array, extent: Extent, problem: Problem, num_tiles: int
) -> tuple[Indices, Masks]:
    count, batch_size = extent.num_tiles, problem.train.batch_size
    batches = -(-count // batch_size)
    order = _order(jax.random.fold_in(key, step // batches), count, num_tiles)
    slots = (step % batches) * batch_size + jnp.arange(batch_size)
    images, real = order[slots % count], (slots < count).astype(jnp.float32)
    rows, masks = {}, {}
    for level, positions in problem.positions:
        rows[level] = (images[:, None] * positions + jnp.arange(positions)[None]).reshape(-1)
        masks[level] = jnp.repeat(real, positions)
    return rows, masks


def _order(key: Array, count: Array, capacity: int) -> Array:
    """A random order of the first `count` of `capacity` images, the others after them.

    Each image has random bits of its own, so that its place does not depend on `capacity`.
    """
    every = jnp.arange(capacity)
    bits = jax.vmap(lambda image: jax.random.bits(jax.random.fold_in(key, image)))(every)
    return jnp.lexsort((bits, every >= count))


def rows_drawn(level: str, problem: Problem) -> int:
    """Rows of a level that a step draws."""
    if problem.train.sampling == "images":
        return problem.train.batch_size * dict(problem.positions)[level]
    return problem.train.positions[level]


def pick(features: Features, rows: Indices) -> Features:
    """Picks rows of every level, of NumPy or JAX arrays."""
    return {k: jax.tree.map(lambda f, k=k: f[rows[k]], features[k]) for k in rows}


@functools.partial(jax.jit, static_argnames=("steps", "problem", "num_tiles"))
def _draw_many(
    keys: Array, first: np.int32, extents: Extent, steps: int, problem: Problem, num_tiles: int
) -> tuple[Indices, Masks]:
    def one_run(key: Array, extent: Extent) -> tuple[Indices, Masks]:
        one_step = functools.partial(draw, problem=problem, num_tiles=num_tiles)
        key = jax.random.wrap_key_data(key)
        return jax.vmap(one_step, (None, 0, None))(key, first + jnp.arange(steps), extent)

    alone = keys.ndim == 1
    return one_run(keys, extents) if alone else jax.vmap(one_run)(keys, extents)


def gather(
    rows: Features,
    keys: Array,
    first: np.int32,
    extents: Extent,
    steps: int,
    problem: Problem,
) -> Batch:
    """Gathers the batches of runs, from step `first` on, on host or disk.

    `keys` and `extents` are those of a `TrainState`: of one run, whose batches are
    `[steps, P, ...]`, or of a group, `[G, steps, P, ...]`.
    """
    capacity = cached_tiles(rows, problem)
    drawn, masks = _draw_many(keys, first, extents, steps, problem, capacity)
    return Batch(pick(rows, jax.tree.map(np.asarray, drawn)), masks)


def cached_tiles(rows: Features, problem: Problem) -> int:
    """Tiles that a cache has room for."""
    level, positions = problem.positions[0]
    return rows[level].source.shape[0] // positions


def step_bytes(rows: Features, problem: Problem) -> int:
    """Bytes of cached features that one step of one run sees."""
    return sum(
        rows_drawn(level, problem) * sum(f.shape[-1] * f.dtype.itemsize for f in rows[level])
        for level in problem.levels
    )
