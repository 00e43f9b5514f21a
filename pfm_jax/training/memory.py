"""Memory of normal images: features of each position, kept once the heads are trained."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax import Array
from jaxtyping import Float, Int, UInt32

from pfm_jax.model import patches
from pfm_jax.model.nearest import coreset
from pfm_jax.training import cache

PROJECTION = 128
"""Dimensions of the random projection that it is chosen in."""


def fit(
    candidates: Float[np.ndarray, "N T h w C"], seed: int, room: int = 0
) -> Float[np.ndarray, "T h w K C"]:
    """Chooses `patches.KEPT` features at each position, by a coreset over the images.

    `candidates` are those of a `FeatureCache`. Images are repeated up to a capacity of at least
    `room`, on which nothing depends, so that data sets share one program. Of fewer images than
    `KEPT`, features repeat.
    """
    count = len(candidates)
    which = np.arange(max(room, cache.capacity(count), patches.KEPT)) % count
    given: Any = np.int32(count), np.uint32(seed)
    by_row = candidates.transpose(1, 2, 0, 3, 4)
    # Row by row, of which one is copied at a time.
    return np.array([[np.asarray(_chosen(row[which], *given)) for row in t] for t in by_row])


@jax.jit
def _chosen(
    features: Float[Array, "N w C"], count: Int[Array, ""], seed: UInt32[Array, ""]
) -> Float[Array, "w K C"]:
    """Features of a coreset of `count` images, another at each of a row's positions."""
    key = jax.random.key(seed)

    def chosen(own: Array) -> Array:
        return own[coreset(own, key, patches.KEPT, PROJECTION, count)]

    return jax.vmap(chosen)(features.swapaxes(0, 1))
