"""Memory of normal images: features of each position, kept once the heads are trained."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, Int

from pfm_jax.model import patches
from pfm_jax.model.nearest import farthest
from pfm_jax.training import cache


def fit(
    candidates: Float[np.ndarray, "N T h w C"], room: int = 0
) -> Float[np.ndarray, "T h w K C"]:
    """Chooses `patches.KEPT` features at each position, which cover those of all images.

    `candidates` are those of a `FeatureCache`. Images are repeated up to a capacity of at least
    `room`, on which nothing depends, so that data sets share one program. Of fewer images than
    `KEPT`, features repeat.
    """
    count = len(candidates)
    which, real = np.arange(max(room, cache.capacity(count), patches.KEPT)) % count, np.int32(count)
    by_row: Any = candidates.transpose(1, 2, 0, 3, 4)
    # Row by row, of which one is copied at a time.
    return np.array([[np.asarray(choose(row[which], real)) for row in tile] for tile in by_row])


@jax.jit
def choose(features: Float[Array, "N w C"], count: Int[Array, ""]) -> Float[Array, "w K C"]:
    """Features of a row's positions: greedily, from the one on that is nearest to the mean of the
    first `count` images. As PatchCore's coreset, without its draws: few are kept, and one to begin
    with is much.
    """
    real = jnp.arange(len(features)) < count

    def chosen(own: Array) -> Array:
        mean = jnp.where(real[:, None], own, 0).sum(0) / count
        first = lax.argmin(jnp.square(own - mean[None]).sum(1), 0, jnp.int32)
        return own[farthest(own, first, patches.KEPT)]

    return jax.vmap(chosen)(features.swapaxes(0, 1))
