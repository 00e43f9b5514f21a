"""Exact AUROC, AP and PRO, on the host.

All curves come from one sort and cumulative sums: a threshold at every distinct score, no bins.
Every metric depends on the order of the scores only.
"""

from __future__ import annotations

import numpy as np
import sklearn.metrics
from scipy import ndimage

EIGHT_CONNECTED = np.ones((3, 3), bool)
ANOMALOUS_AND_NORMAL = np.array([0.0, 1.0]), np.array([1.0, 0.0])
"""The weights of labels 0 and 1 in hits and in false alarms."""

PIECE = 2**16
"""Points of a curve that are summed at a time."""


def _cumulated(scores: np.ndarray, kinds: np.ndarray, *weights: np.ndarray) -> list[np.ndarray]:
    """For each distinct score from the top, preceded by 0: the sum of weights at or above it.

    Args:
        scores: `[N]`.
        kinds: `[N]`, what each entry is.
        weights: of each kind; a sum is made for each such table.
    """
    last_of_its_value, kinds = _sorted(scores, kinds)
    sums = []
    for table in weights:
        values = table[kinds]
        sums.append(np.zeros(np.count_nonzero(last_of_its_value) + 1))
        np.compress(last_of_its_value, np.cumsum(values, out=values), out=sums[-1][1:])
    return sums


def _sorted(scores: np.ndarray, kinds: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """In the order of falling scores: whether an entry is the last of its score, and its kind.

    A float32 score and its kind are sorted as one integer of 64 bits, in place: nothing is looked
    up all over memory, which is most of the time for a hundred million pixels.
    """
    if scores.dtype != np.float32:
        order = np.argsort(scores)[::-1]
        ordered = scores[order]
        return np.append(ordered[1:] != ordered[:-1], True), kinds[order]
    bits = (scores + np.float32(0)).view(np.int32)  # of -0.0, which equals 0.0, those of 0.0
    bits ^= (bits >> 31) & 0x7FFFFFFF  # now integers are ordered as the scores are
    keys = bits.astype(np.int64)
    keys <<= 32
    keys |= kinds
    keys.sort()
    rising = keys.view("<i4")[1::2]  # the upper halves; JAX knows no big-endian machine
    last_of_its_value = np.append(True, rising[1:] != rising[:-1])[::-1]
    keys &= 2**32 - 1
    return last_of_its_value, keys[::-1]


def _checked(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    scores, labels = np.asarray(scores), np.asarray(labels).astype(bool)
    if scores.shape != labels.shape:
        raise ValueError(f"scores are {scores.shape}, labels {labels.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("scores have entries that are not finite")
    if labels.all() or not labels.any():
        raise ValueError("labels are all of one class: no curve can be drawn")
    return scores, labels


def _area(y: np.ndarray, x: np.ndarray) -> float:
    """By trapezoids, piece by piece: memory that is touched once costs more than arithmetic."""
    pieces = (slice(start, start + PIECE + 1) for start in range(0, len(x) - 1, PIECE))
    return sum(float(np.trapezoid(y[piece], x[piece])) for piece in pieces)


def _auroc(hits: np.ndarray, alarms: np.ndarray) -> float:
    return float(_area(hits, alarms) / hits[-1] / alarms[-1])


def image_auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve of image scores `[N]` against labels `[N]` (1 anomalous).

    Raises:
        ValueError: shapes that differ, scores that are not finite, labels of one class.
    """
    scores, labels = _checked(scores, labels)
    hits, alarms = _cumulated(scores, labels.astype(np.int32), *ANOMALOUS_AND_NORMAL)
    return _auroc(hits, alarms)


def image_ap(scores: np.ndarray, labels: np.ndarray) -> float:
    """Average precision of image scores `[N]` (`sklearn.metrics.average_precision_score`)."""
    scores, labels = _checked(scores, labels)
    return float(sklearn.metrics.average_precision_score(labels, scores))


def pixel_auroc(score_maps: np.ndarray, masks: np.ndarray) -> float:
    """Area under the ROC curve of all pixels, maps and masks `[N, H, W]`. Raises ValueError."""
    score_maps, masks = _checked(score_maps, masks)
    kinds = masks.ravel().astype(np.int32)
    hits, alarms = _cumulated(score_maps.ravel(), kinds, *ANOMALOUS_AND_NORMAL)
    return _auroc(hits, alarms)


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
    regions, _, part, alarm = _regions(masks)
    overlap, alarms = _cumulated(score_maps.ravel(), regions.ravel(), part, alarm)
    return _pro(overlap, alarms, max_fpr)


def pixel_metrics(score_maps: np.ndarray, masks: np.ndarray) -> tuple[float, float]:
    """`pixel_auroc` and `pro_auc` from one sort."""
    score_maps, masks = _checked(score_maps, masks)
    regions, *tables = _regions(masks)
    hits, overlap, alarms = _cumulated(score_maps.ravel(), regions.ravel(), *tables)
    return _auroc(hits, alarms), _pro(overlap, alarms, 0.3)


def _regions(masks: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The 8-connected regions of all masks.

    Returns:
        The number of each pixel's region `[N, H, W]`, 0 outside of all; and for each number: 1 if
        it is a region, the part of it that a pixel is, 1 if it is none.
    """
    regions, count = np.zeros(masks.shape, np.int32), 0
    for mask, numbers in zip(masks, regions, strict=True):
        labelled, found = ndimage.label(mask, EIGHT_CONNECTED)
        numbers[mask] = labelled[mask] + count
        count += found
    is_region = np.arange(count + 1) > 0
    parts = is_region / np.bincount(regions.ravel(), minlength=count + 1)
    return regions, is_region.astype(np.float64), parts, (~is_region).astype(np.float64)


def _pro(overlap: np.ndarray, alarms: np.ndarray, max_fpr: float) -> float:
    limit = max_fpr * alarms[-1]
    inside = np.searchsorted(alarms, limit, side="right")
    around = slice(inside - 1, inside + 1)
    at_limit = np.interp(limit, alarms[around], overlap[around])
    area = _area(overlap[:inside], alarms[:inside])
    area += (limit - alarms[inside - 1]) * (overlap[inside - 1] + at_limit) / 2
    return float(area / limit / overlap[-1])
