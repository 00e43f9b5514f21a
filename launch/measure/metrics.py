"""The metrics of a category's maps, and of ten times as many."""

from __future__ import annotations

from functools import partial

import numpy as np

from launch.measure.machine import in_turn
from pfm_jax import metrics


def measure(images: int = 160, size: int = 256) -> dict[str, float]:
    """Seconds for `pro_auc` and both AUROCs of `images` made-up maps, and of ten times as many."""
    found = {}
    for name, count in (("metrics_seconds", images), ("metrics_seconds_10x", 10 * images)):
        rng = np.random.default_rng(0)
        masks = np.zeros((count, size, size), bool)
        masks[: 3 * count // 4, size // 3 : size // 2, size // 3 : size // 2] = True
        maps = rng.random((count, size, size), np.float32) + np.float32(0.3) * masks
        seconds = in_turn({"all": partial(_all, maps, masks)}, repeats=3)
        found[name] = seconds["all"]
    return {**found, "metrics_10x_ratio": found["metrics_seconds_10x"] / found["metrics_seconds"]}


def _all(maps: np.ndarray, masks: np.ndarray) -> None:
    metrics.pro_auc(maps, masks)
    metrics.pixel_auroc(maps, masks)
    metrics.image_auroc(maps.max((1, 2)), np.asarray(masks.any((1, 2))))
