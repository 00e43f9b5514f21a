"""Exact AUROC, AP and PRO, on the host.

All curves come from one sort and cumulative sums: a threshold at every distinct score, no bins.
Every metric depends on the order of the scores only.
"""

from __future__ import annotations

import numpy as np
import sklearn.metrics
from scipy import ndimage

EIGHT_CONNECTED = np.ones((3, 3), bool)


def _cumulated(scores: np.ndarray, *weights: np.ndarray) -> list[np.ndarray]:
    """For each distinct score from the top, preceded by 0: the sum of weights at or above it."""
    order = np.argsort(scores)[::-1]
    ordered = scores[order]
    last_of_its_value = np.append(ordered[1:] != ordered[:-1], True)
    return [
        np.append(0.0, np.cumsum(weight[order], dtype=np.float64)[last_of_its_value])
        for weight in weights
    ]


def _checked(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(scores), np.asarray(labels).astype(bool)
    if scores.shape != labels.shape:
        raise ValueError(f"scores are {scores.shape}, labels {labels.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("scores have entries that are not finite")
    if labels.all() or not labels.any():
        raise ValueError("labels are all of one class: no curve can be drawn")
    return scores, labels


def _auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    scores, labels = _checked(scores, labels)
    hits, alarms = _cumulated(scores.ravel(), labels.ravel(), ~labels.ravel())
    return float(np.trapezoid(hits / hits[-1], alarms / alarms[-1]))


def image_auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve of image scores `[N]` against labels `[N]` (1 anomalous).

    Raises:
        ValueError: shapes that differ, scores that are not finite, labels of one class.
    """
    return _auroc(scores, labels)


def image_ap(scores: np.ndarray, labels: np.ndarray) -> float:
    """Average precision of image scores `[N]` (`sklearn.metrics.average_precision_score`)."""
    scores, labels = _checked(scores, labels)
    return float(sklearn.metrics.average_precision_score(labels, scores))


def pixel_auroc(score_maps: np.ndarray, masks: np.ndarray) -> float:
    """Area under the ROC curve of all pixels, maps and masks `[N, H, W]`. Raises ValueError."""
    return _auroc(score_maps, masks)


def pro_auc(score_maps: np.ndarray, masks: np.ndarray, max_fpr: float = 0.3) -> float:
    """Area under the per-region overlap up to a false-positive rate, divided by it.

    The mean, over the 8-connected regions of the ground truth, of the part of the region that is
    at or above a threshold, against the part of all normal pixels that is; trapezoids between the
    thresholds, linear interpolation at the limit. The definition of MVTec AD's evaluation script.

    Args:
        score_maps: `[N, H, W]`.
        masks: `[N, H, W]`, non-zero is anomalous.
        max_fpr: the limit, in (0, 1].

    Raises:
        ValueError: as `image_auroc`.
    """
    score_maps, masks = _checked(score_maps, masks)
    weights, regions = np.zeros(masks.shape, np.float64), 0
    for mask, weight in zip(masks, weights, strict=True):
        labelled, count = ndimage.label(mask, EIGHT_CONNECTED)
        areas = np.bincount(labelled.ravel())
        weight[mask] = 1 / areas[labelled[mask]]
        regions += count
    overlap, alarms = _cumulated(score_maps.ravel(), weights.ravel(), ~masks.ravel())
    overlap, fpr = overlap / regions, alarms / alarms[-1]
    inside = fpr <= max_fpr
    at_limit = np.interp(max_fpr, fpr, overlap)
    x, y = np.append(fpr[inside], max_fpr), np.append(overlap[inside], at_limit)
    return float(np.trapezoid(y, x) / max_fpr)
