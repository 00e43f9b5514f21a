"""Pictures of anomaly maps."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from pfm_jax.evaluation import figures


@pytest.mark.parametrize("is_anomalous", [False, True])
def test_only_anomalous_images_have_outlines(is_anomalous: bool) -> None:
    """A normal image may have pixels above the threshold, which its score, a mean, is not."""
    anomaly_map = np.zeros((20, 30), np.float32)
    anomaly_map[5:10, 5:15] = 3
    grey = np.full((20, 30, 3), 100, np.uint8)
    drawn = figures.overlay(grey, anomaly_map, 2.0, 3.0 if is_anomalous else 1.0)
    red = (np.asarray(Image.open(io.BytesIO(drawn))) == (255, 0, 0)).all(-1)
    assert red.sum() == (2 * (5 + 10) - 4) * is_anomalous
