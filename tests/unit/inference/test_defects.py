"""Regions above a threshold, against a flood fill by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pfm_jax.inference import defects
from pfm_jax.inference.calibration import default_threshold
from pfm_jax.inference.prediction import decide


def flooded(above: np.ndarray) -> list[set[tuple[int, int]]]:
    """Sets of pixels (row, column) that are connected, corners included."""
    left, found = {(int(y), int(x)) for y, x in np.argwhere(above)}, []
    while left:
        region, edge = set(), [left.pop()]
        while edge:
            y, x = edge.pop()
            region.add((y, x))
            near = {(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)} & left
            left -= near
            edge += near
        found.append(region)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_regions_are_those_of_a_flood_fill(seed: int) -> None:
    anomaly_map = np.random.default_rng(seed).random((23, 31)).astype(np.float32)
    found = defects.find(anomaly_map, (31, 23), 0.8)
    expected = flooded(anomaly_map > 0.8)
    assert len(found) == len(expected) > 20
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
    by_peak = {max(float(anomaly_map[at]) for at in region): region for region in expected}
    for one in found:
        rows, columns = np.array(sorted(by_peak[one.score])).T
        assert one.area == len(rows)
        left, top, width, height = one.box
        assert (left, top) == (columns.min(), rows.min())
        assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)
        assert one.centroid == pytest.approx((columns.mean() + 0.5, rows.mean() + 0.5))


def disc(side: int, centre: tuple[float, float], radius: float) -> np.ndarray:
    y, x = np.mgrid[:side, :side] + 0.5
    return np.float32((x - centre[0]) ** 2 + (y - centre[1]) ** 2 < radius**2)


@pytest.mark.parametrize("size", [(256, 256), (500, 300), (6000, 8000)])
def test_they_are_in_pixels_of_the_original(size: tuple[int, int]) -> None:
    """The area and centre of a disc are known in closed form; larger images are reduced."""
    (one,) = defects.find(disc(256, (64, 128), 32), size, 0.5)
    x, y = size[0] / 256, size[1] / 256
    assert one.area == pytest.approx(np.pi * 32 * x * 32 * y, rel=0.02)
    assert one.centroid == pytest.approx((64 * x, 128 * y), rel=0.01)
    expected = ((64 - 32) * x, (128 - 32) * y, 64 * x, 64 * y)
    assert one.box == pytest.approx(expected, abs=1.5 * max(x, y, 1))


def test_coco() -> None:
    first = defects.find(disc(64, (20, 30), 5) + disc(64, (50, 50), 3), (64, 64), 0.5)
    second = defects.find(disc(64, (20, 30), 5), (128, 64), 0.5)
    given = [("a.png", (64, 64), first), ("b.png", (64, 64), []), ("c.png", (128, 64), second)]
    found = defects.coco(given)
    assert [image["file_name"] for image in found["images"]] == ["a.png", "b.png", "c.png"]
    assert [one["id"] for one in found["annotations"]] == [1, 2, 3]
    assert [one["image_id"] for one in found["annotations"]] == [1, 1, 3]
    images = {image["id"]: image for image in found["images"]}
    (category,) = found["categories"]
    for one in found["annotations"]:
        left, top, width, height = one["bbox"]
        image = images[one["image_id"]]
        assert 0 <= left < left + width <= image["width"]
        assert 0 <= top < top + height <= image["height"]
        assert 0 < one["area"] <= width * height and one["category_id"] == category["id"]


def test_normal_images_have_none() -> None:
    """Regions above the threshold count only where the image is anomalous."""
    maps = [disc(64, (20, 30), 5), disc(64, (20, 30), 5)]
    normal = np.linspace(0, 0.5, 19)
    decided = decide(np.array([0.9, 0.4]), maps, normal, default_threshold(normal))
    assert decided.threshold.value == 0.5 and decided.is_anomalous.tolist() == [True, False]
    assert [len(found) for found in decided.defects] == [1, 0]
    undecided = decide(np.array([0.9, 0.4]), maps, normal[1:], default_threshold(normal[1:]))
    assert undecided.defects is None and undecided.is_anomalous is None
