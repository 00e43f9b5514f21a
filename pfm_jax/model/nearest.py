"""Nearest neighbours by brute force, in blocks, on the device; and coresets."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int, Key

BLOCK = 8192
"""Vectors that are compared at a time."""

Nearest = tuple[Array, Array]
"""Distances, and indices."""


def squared_distances(a: Float[Array, "Q D"], b: Float[Array, "M D"]) -> Float[Array, "Q M"]:
    """Squared Euclidean distances of all pairs."""
    products = jnp.dot(a, b.T, precision="highest")
    return jnp.maximum((a * a).sum(1)[:, None] + (b * b).sum(1)[None] - 2 * products, 0)


def nearest(
    queries: Float[Array, "Q D"], memory: Float[Array, "M D"], count: int, recall: float = 1.0
) -> tuple[Float[Array, "Q K"], Int[Array, "Q K"]]:
    """Distances to the `count` nearest vectors of a memory, ascending, and their indices.

    Exact, in blocks of the memory; with a `recall` below 1 each block is searched by
    `lax.approx_min_k`, whose recall that is on TPUs, where it is faster.
    """
    total, width = memory.shape
    block = min(BLOCK, total)
    blocks = -(-total // block)
    padded = jnp.pad(memory, ((0, blocks * block - total), (0, 0)))
    norms = jnp.where(jnp.arange(blocks * block) < total, (padded * padded).sum(1), jnp.inf)

    def search(found: Nearest, part: tuple[Array, Array, Array]) -> tuple[Nearest, None]:
        vectors, squares, first = part
        # Without the queries' own norms, which change no order.
        distances = squares[None] - 2 * jnp.dot(queries, vectors.T, precision="highest")
        own, where = _smallest(distances, min(count, block), recall)
        both = jnp.concatenate([found[0], own], 1), jnp.concatenate([found[1], first + where], 1)
        kept, at = _smallest(both[0], count, 1.0)
        return (kept, jnp.take_along_axis(both[1], at, 1)), None

    shape = queries.shape[0], count
    start = jnp.full(shape, jnp.inf), jnp.zeros(shape, jnp.int32)
    firsts = block * jnp.arange(blocks, dtype=jnp.int32)
    parts = padded.reshape(blocks, block, width), norms.reshape(blocks, block), firsts
    (_, indices), _ = lax.scan(search, start, parts)
    # Anew, as differences: products of large norms lose the small distances.
    exact = lax.map(lambda at: jnp.linalg.norm(queries - memory[at], axis=-1), indices.T).T
    return exact, indices


def _smallest(values: Array, count: int, recall: float) -> Nearest:
    if count == 1 and recall == 1.0:
        where = lax.argmin(values, 1, jnp.int32)[:, None]
        return jnp.take_along_axis(values, where, 1), where
    if recall < 1.0:
        found, where = lax.approx_min_k(values, count, recall_target=recall)
        return found, where
    negative, where = lax.top_k(-values, count)
    return -negative, where


@functools.partial(jax.jit, static_argnames=("count", "dimensions"))
def coreset(
    vectors: Float[Array, "N D"], key: Key[Array, ""], count: int, dimensions: int
) -> Int[Array, " K"]:
    """Indices of vectors that cover all of them, as PatchCore chooses them (Roth et al., 2022,
    algorithm 1): by `farthest` from a random one, in a random projection to few dimensions."""
    first, project = jax.random.split(key)
    matrix = jax.random.normal(project, (vectors.shape[-1], dimensions))
    projected = jnp.dot(vectors, matrix, precision="highest")
    start = jax.random.randint(first, (), 0, len(vectors), jnp.int32)
    return farthest(projected, start, count)


@functools.partial(jax.jit, static_argnames="count")
def farthest(vectors: Float[Array, "N D"], first: Int[Array, ""], count: int) -> Int[Array, " K"]:
    """Greedy choice of vectors: after the `first`, always the one farthest from those chosen."""

    def choose(index: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        chosen, distances = state
        newest = vectors[chosen[index - 1]][None]
        distances = jnp.minimum(distances, squared_distances(vectors, newest)[:, 0])
        return chosen.at[index].set(lax.argmax(distances, 0, jnp.int32)), distances

    chosen = jnp.zeros(count, jnp.int32).at[0].set(first)
    return lax.fori_loop(1, count, choose, (chosen, jnp.full(len(vectors), jnp.inf)))[0]
