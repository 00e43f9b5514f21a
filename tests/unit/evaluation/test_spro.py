"""sPRO against its definition, threshold by threshold, and against PRO."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pfm_jax import metrics
from pfm_jax.evaluation import spro
from pfm_jax.types import Example, Saturation
from tests.synthetic import png

Found = list[list[spro.Region]]


def brute_force_spro(maps: np.ndarray, found: Found, limit: float) -> float:
    """The definition of the paper, trapezoids between thresholds."""
    normal = np.ones(maps.shape, bool)
    for index, own in enumerate(found):
        for marked, _ in own:
            normal[index] &= ~marked
    curve = [(0.0, 0.0)]
    for threshold in sorted(set(maps.ravel().tolist()), reverse=True):
        overlaps = [
            min(np.count_nonzero(maps[index][marked] >= threshold) / area, 1)
            for index, own in enumerate(found)
            for marked, area in own
        ]
        rate = np.count_nonzero(maps[normal] >= threshold) / np.count_nonzero(normal)
        curve.append((rate, float(np.mean(overlaps))))
    total = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(curve):
        if x0 < limit and x1 > x0:
            end = min(x1, limit)
            total += (end - x0) * (y0 + y0 + (y1 - y0) * (end - x0) / (x1 - x0)) / 2
    return total / limit


def made(seed: int, levels: int | None) -> tuple[np.ndarray, Found]:
    """Maps `[4, 20, 20]`, with ties if `levels` is given, and 0 to 3 regions that may overlap."""
    rng = np.random.default_rng(seed)
    maps, found = rng.random((4, 20, 20)), []
    for index in range(4):
        own = []
        for area in (3.0, 7.5, 40.0)[:index]:
            marked = np.zeros((20, 20), bool)
            y, x = rng.integers(0, 14, 2)
            marked[y : y + 6, x : x + 5] = True
            own.append(spro.Region(marked, min(area, 30.0)))
            maps[index] += 0.4 * marked
        found.append(own)
    return (np.floor(maps * levels) if levels else maps).astype(np.float32), found


@pytest.mark.parametrize("levels", [None, 4])
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_spro_is_the_definition(seed: int, limit: float, levels: int | None) -> None:
    maps, found = made(seed, levels)
    expected = brute_force_spro(maps, found, limit)
    assert spro.spro_auc(maps, found, limit) == pytest.approx(expected, abs=1e-12)


def test_regions_that_must_be_found_whole_have_the_pro_of_their_masks() -> None:
    masks = np.zeros((3, 16, 16), bool)
    masks[1, 2:6, 2:6] = masks[1, 9:12, 3:15] = masks[2, :4, 8:] = True
    maps = np.random.default_rng(0).random(masks.shape) + masks * 0.5
    numbers, sizes = metrics.label(masks)
    found = [
        [spro.Region(own == n, float(sizes[n])) for n in np.unique(own[own > 0])] for own in numbers
    ]
    for limit in (0.05, 0.3):
        expected = metrics.pro_auc(maps, masks, limit)
        assert spro.spro_auc(maps, found, limit) == pytest.approx(expected, abs=1e-12)


def test_areas_that_suffice_are_absolute_or_relative_and_scaled_with_the_mask() -> None:
    first, second = np.zeros((2, 40, 40), np.uint8)
    first[:20, :20], second[30:, 30:] = 255, 254
    example = Example("a.png", b"", None, 1, "logical", 0.0, (png(first), png(second)))
    known = {255: Saturation(100, False), 254: Saturation(0.5, True)}
    both = spro.regions(example, 20, known)
    assert [(one.marked.sum(), one.area) for one in both] == [(100, 25), (25, 12.5)]
    small = spro.regions(example, 20, {255: Saturation(1000, False), 254: Saturation(1.0, True)})
    assert [one.area for one in small] == [100, 25], "no more than the region itself"
    thin = np.zeros((1000, 1600), np.uint8)
    thin[100:113, 200:207] = 255
    (few,) = spro.regions(
        Example("a.png", b"", None, 1, "logical", 0.0, (png(thin),)),
        256,
        {255: Saturation(1.0, True)},
    )
    assert few.area == few.marked.sum() < 13 * 7 * 256**2 / thin.size, "so that it can be found"
