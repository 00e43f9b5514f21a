"""Decisions on images, from their scores and anomaly maps."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pfm_jax.inference import calibration, defects
from pfm_jax.inference.calibration import Threshold
from pfm_jax.inference.defects import Defect


class Prediction(NamedTuple):
    """Decisions on N images.

    Attributes:
        scores: `[N]`; higher is more anomalous, on a scale that depends on the recipe.
        p_values: `[N]`; see `calibration.p_values`.
        is_anomalous: bool `[N]`, whether the score exceeds the threshold; None without one.
        anomaly_maps: for each image `[H, W]`, at its own resolution.
        defects: for each image its regions above the threshold, none of a normal one; None without
            a threshold.
    """

    scores: np.ndarray
    p_values: np.ndarray
    is_anomalous: np.ndarray | None
    threshold: Threshold | None
    anomaly_maps: list[np.ndarray]
    defects: list[list[Defect]] | None


def decide(
    scores: np.ndarray,
    anomaly_maps: list[np.ndarray],
    normal_scores: np.ndarray,
    threshold: Threshold | None,
) -> Prediction:
    """Decides which of N images are anomalous, and where; `normal_scores` are of held-out ones."""
    p_values = calibration.p_values(scores, normal_scores)
    if threshold is None:
        return Prediction(scores, p_values, None, None, anomaly_maps, None)
    over, limit = scores > threshold.value, threshold.value
    found = [
        defects.find(one, one.shape[::-1], limit) if anomalous else []
        for one, anomalous in zip(anomaly_maps, over, strict=True)
    ]
    return Prediction(scores, p_values, over, threshold, anomaly_maps, found)
