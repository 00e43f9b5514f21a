"""Saturated per-region overlap (sPRO), for regions of which a part suffices to be found.

Where an object is missing, any place where it might have been is right, if as large as the object.
Definition: Bergmann et al., Beyond Dents and Scratches, IJCV 2022, of MVTec LOCO's evaluation
script, at the size of the maps: areas that suffice are scaled with the masks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from pfm_jax.datasets.images import mask_at
from pfm_jax.datasets.masks import decode_mask
from pfm_jax.metrics import area_up_to
from pfm_jax.types import Example, Saturation

MAX_FPR = 0.05


class Region(NamedTuple):
    """A region of one image: bool `[H, W]`, and the area in pixels at which its overlap is 1."""

    marked: np.ndarray
    area: float


def regions(example: Example, size: int, saturations: Mapping[int, Saturation]) -> list[Region]:
    """Regions of an example at `[size, size]`, without those that vanish at that size.

    The values of its masks are among those of `saturations`.
    """
    found = []
    for encoded in example.regions:
        mask = decode_mask(encoded, f"mask of {example.path}")
        if not mask.marked.any():
            continue
        threshold, is_relative = saturations[mask.value]
        whole = int(np.count_nonzero(mask.marked))
        enough = threshold * whole if is_relative else float(min(threshold, whole))
        marked = mask_at(mask.marked, size)
        if marked.any():
            scaled = enough * size**2 / mask.marked.size
            found.append(Region(marked, min(scaled, float(np.count_nonzero(marked)))))
    return found


def spro_auc(
    score_maps: np.ndarray, found: Sequence[Sequence[Region]], max_fpr: float = MAX_FPR
) -> float:
    """Area under the sPRO of maps `[N, H, W]` up to a false-positive rate, divided by it.

    Mean over the regions of all images of the area at or above a threshold, divided by the one that
    suffices and at most 1, against the fraction of the pixels in no region at or above it.
    """
    shares, normal = np.zeros(score_maps.shape), np.ones(score_maps.shape, bool)
    for own_map, own_shares, own_normal, own in zip(score_maps, shares, normal, found, strict=True):
        for marked, area in own:
            order = np.argsort(-own_map[marked])
            each = np.empty(len(order))
            each[order] = np.diff(np.minimum(np.arange(len(order) + 1) / area, 1))
            own_shares[marked] += each
            own_normal &= ~marked
    order = np.argsort(-score_maps, axis=None)
    last = np.append(np.diff(score_maps.ravel()[order]) != 0, True)  # of its value
    overlaps, alarms = (
        np.append(0, np.cumsum(one.ravel()[order])[last]) for one in (shares, normal)
    )
    limit = max_fpr * alarms[-1]
    return area_up_to(limit, overlaps, alarms) / sum(map(len, found)) / limit
