"""Nearest neighbours and coresets against all distances."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from pfm_jax.model import nearest as room
from pfm_jax.model.nearest import coreset, farthest, nearest, squared_distances


@pytest.mark.parametrize("block", [4, 10, 64])
@pytest.mark.parametrize("count", [1, 3, 30])
def test_blocks_give_what_one_search_gives(
    block: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks that divide the memory or not, smaller than the number of neighbours or not."""
    monkeypatch.setattr(room, "BLOCK", block)
    rng = np.random.default_rng(block)
    queries, memory = (jnp.asarray(rng.normal(size=(n, 5)), jnp.float32) for n in (7, 30))
    distances, indices = nearest(queries, memory, count)
    every = cdist(queries, memory)
    np.testing.assert_array_equal(indices, np.argsort(every)[:, :count])
    np.testing.assert_allclose(distances, np.sort(every)[:, :count], rtol=1e-5)


def test_small_distances_of_large_vectors_are_exact() -> None:
    """Products of such norms would lose the distance: 1e4 squared, times 64, in float32."""
    memory = jnp.broadcast_to(1e4 + 100 * jnp.arange(3.0)[:, None], (3, 64))
    distances, indices = nearest(memory[1:2] + 0.25, memory, 1)
    assert int(indices[0, 0]) == 1
    np.testing.assert_allclose(distances, 0.25 * 8, rtol=1e-6)


def test_an_approximate_search_finds_most() -> None:
    rng = np.random.default_rng(0)
    queries, memory = (jnp.asarray(rng.normal(size=(n, 8)), jnp.float32) for n in (200, 1000))
    _, exact = nearest(queries, memory, 1)
    _, found = nearest(queries, memory, 1, recall=0.9)
    assert np.mean(np.asarray(exact) == np.asarray(found)) >= 0.85


def test_squared_distances_are_never_negative() -> None:
    rng = np.random.default_rng(0)
    rows = jnp.asarray(1000 * rng.normal(size=(50, 30)), jnp.float32)
    found = np.asarray(squared_distances(rows, rows))
    assert found.min() == 0
    np.testing.assert_allclose(found, cdist(rows, rows, "sqeuclidean"), rtol=1e-4, atol=100)


def test_a_coreset_is_what_a_greedy_search_chooses() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(60, 4)).astype(np.float32)
    chosen = [7]
    while len(chosen) < 12:
        chosen.append(int(cdist(vectors, vectors[chosen]).min(1).argmax()))
    np.testing.assert_array_equal(farthest(jnp.asarray(vectors), jnp.int32(7), 12), chosen)


def test_a_projection_keeps_what_is_far_apart() -> None:
    """Ten clusters, ten vectors: one of each, in a projection to fewer dimensions too."""
    rng = np.random.default_rng(1)
    centres = 100 * rng.normal(size=(10, 64))
    vectors = np.repeat(centres, 30, 0) + rng.normal(size=(300, 64))
    found = coreset(jnp.asarray(vectors, jnp.float32), jax.random.key(0), 10, 16)
    assert sorted(np.asarray(found) // 30) == [*range(10)]
