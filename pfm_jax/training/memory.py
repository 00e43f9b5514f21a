"""Memory of normal images: features of each position, kept once the heads are trained."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jax import Array
from jaxtyping import Float, UInt32

from pfm_jax.model import patches
from pfm_jax.model.nearest import coreset
from pfm_jax.system import devices
from pfm_jax.training import cache

PROJECTION = 128
"""Dimensions of the random projection that it is chosen in."""


def fit(
    seen: Float[np.ndarray, "N T h w C"], seed: int, room: int = 0
) -> Float[Array, "T h w K C"]:
    """Keeps `patches.KEPT` features of each position, on every device: of images that differ there.

    Of fewer images some are kept twice. `seen`: the patches of a `FeatureCache`. There is `room`
    for as many images or more: a program is compiled for each.
    """
    room = max(room, cache.capacity(len(seen)), patches.KEPT)
    which = np.arange(room) % len(seen)  # over and over
    by_row = seen.transpose(1, 2, 0, 3, 4)
    kept = [[_chosen(row[which], np.uint32(seed)) for row in tile] for tile in by_row]
    rows: Any = np.array(jax.device_get(kept))
    return devices.replicate(rows)


@jax.jit
def _chosen(features: Float[Array, "N w C"], seed: UInt32[Array, ""]) -> Float[Array, "w K C"]:
    """Features of a coreset of the images, another at each of a row's positions."""
    key = jax.random.key(seed)

    def chosen(own: Array) -> Array:
        return own[coreset(own, key, patches.KEPT, PROJECTION)]

    return jax.vmap(chosen)(features.swapaxes(0, 1))
