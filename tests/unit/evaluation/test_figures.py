"""Pictures of anomaly maps."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from pfm_jax.datasets import images
from pfm_jax.evaluation import figures


@pytest.mark.parametrize("is_anomalous", [False, True])
def test_only_anomalous_images_have_outlines(is_anomalous: bool) -> None:
    """A normal image may have pixels above the threshold, which its score, a mean, is not."""
    anomaly_map = np.zeros((20, 30), np.float32)
    anomaly_map[5:10, 5:15] = 3
    grey = Image.fromarray(np.full((20, 30, 3), 100, np.uint8))
    drawn = figures.overlay(grey, anomaly_map, 2.0, 3.0 if is_anomalous else 1.0)
    red = (np.asarray(drawn) == (255, 0, 0)).all(-1)
    assert red.sum() == (2 * (5 + 10) - 4) * is_anomalous


@pytest.mark.parametrize("size", [(64, 64), (301, 203), (50, 90), (40, 20)])
@pytest.mark.parametrize("pixels", [1, 700, 10**9])
def test_strips_are_rows_of_the_resized_map(
    size: tuple[int, int], pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(figures, "STRIP_PIXELS", pixels)
    anomaly_map = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    found = [(first, rows[inner]) for first, rows, inner in figures.strips(anomaly_map, size)]
    whole = np.concatenate([rows for _, rows in found])
    np.testing.assert_allclose(whole, images.map_at(anomaly_map, size), atol=1e-5)
    starts = np.cumsum([0, *(len(rows) for _, rows in found)])
    assert [first for first, _ in found] == starts[:-1].tolist()


def test_strips_make_no_difference_to_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 255, (203, 301, 3), np.uint8))
    anomaly_map = rng.random((64, 64)).astype(np.float32)
    drawn = []
    for pixels in (10**9, 1, 5000):
        monkeypatch.setattr(figures, "STRIP_PIXELS", pixels)
        drawn.append(np.asarray(figures.overlay(image, anomaly_map, 0.7, 1.0)))
        mask = np.asarray(figures.mask(anomaly_map, image.size, 0.7))
        np.testing.assert_array_equal(mask > 0, images.map_at(anomaly_map, image.size) > 0.7)
    for other in drawn[1:]:
        np.testing.assert_allclose(other.astype(int), drawn[0], atol=1)
    assert drawn[0].shape == (203, 301, 3)
