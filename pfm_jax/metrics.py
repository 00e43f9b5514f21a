"""Exact AUROC, AP, F1-max, PRO and AUPIMO, on the host.

All curves come from one sort and running sums: a threshold at every distinct score, no bins. Every
metric depends only on the order of the scores. An entry's score and kind are packed into one
integer for the sort, and curves are summed in chunks: at a hundred million pixels, memory traffic
dominates the arithmetic.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import sklearn.metrics
from scipy import ndimage

NAMES = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "image_f1_max": "image F1",
    "pixel_auroc": "pixel AUROC",
    "pixel_f1_max": "pixel F1",
    "pro_auc": "PRO",
    "pro_auc_05": "PRO 0.05",
    "aupimo": "AUPIMO",
    "spro_auc_05": "sPRO 0.05",
}
"""Names for tables of the metrics, fields of `types.Metrics`."""
SELDOM = {"spro_auc_05"}  # defined by few data sets; see `evaluation.spro`
PAPER_METRICS = ("image_auroc", "pixel_auroc", "pro_auc")
"""Metrics in the paper's tables; these have bootstrap intervals."""

HIT_WEIGHTS, ALARM_WEIGHTS = np.array([0.0, 1.0]), np.array([1.0, 0.0])
"""Weights of labels 0 and 1 in the counts of hits and of false alarms."""
CHUNK_SIZE = 2**17  # entries summed at once
PRO_LIMITS = (0.3, 0.05)  # false-positive rates
PIMO_LIMITS = (1e-5, 1e-4)
NEIGHBOURS = np.pad(np.ones((1, 3, 3)), ((1, 1), (0, 0), (0, 0)))  # of a pixel, within its mask


class PixelMetrics(NamedTuple):
    """Metrics of maps from one sort of their pixels; see the functions of these names."""

    pixel_auroc: float
    pixel_f1_max: float
    pro_auc: float
    pro_auc_05: float


class Regions(NamedTuple):
    """8-connected regions of ground-truth masks `[N, H, W]`, R in all; see `label`.

    Attributes:
        numbers: region of each pixel `[N, H, W]`, from 1 up through all masks; 0 outside.
        sizes: pixels of each region `[R + 1]`; those outside come first.
    """

    numbers: np.ndarray
    sizes: np.ndarray


Masks = np.ndarray | Regions
"""Masks `[N, H, W]`, or their regions, to label them once for several maps."""


def label(masks: Masks) -> Regions:
    """Labels the regions of masks `[N, H, W]`; returns regions as they are."""
    if isinstance(masks, Regions):
        return masks
    numbers, _ = ndimage.label(masks, NEIGHBOURS)
    sizes = np.bincount(numbers[numbers > 0], minlength=1)
    sizes[0] = numbers.size - sizes.sum()
    return Regions(numbers, sizes)


def ranks(scores: np.ndarray) -> np.ndarray:
    """Integers in the order of checked scores, int32 for float32; see `checked`."""
    if scores.dtype != np.float32:
        return scores
    bits = (scores + np.float32(0)).view(np.int32)  # + 0 turns -0.0 into 0.0
    return bits ^ ((bits >> 31) & 0x7FFFFFFF)


def _keys(scores: np.ndarray, kinds: np.ndarray) -> np.ndarray:
    """Sort keys, int64 `[N]`: ranks of scores `[N]` in the upper half, kinds `[N]` in the lower."""
    keys = ranks(scores).astype(np.int64)
    keys <<= 32
    keys |= kinds
    return keys


def _curves(keys: np.ndarray, *weights: np.ndarray) -> Iterator[list[np.ndarray]]:
    """Sums at or above each distinct score: one curve per table of the weight of each kind.

    Yields chunks from the highest score down; each starts where the previous one ended. Sorts
    `keys` in place.
    """
    keys.sort()
    sums, points = [0.0] * len(weights), [0.0] * len(weights)
    for stop in range(len(keys), 0, -CHUNK_SIZE):
        start = max(0, stop - CHUNK_SIZE)
        values = keys[start:stop] >> 32
        below = keys[start - 1] >> 32 if start else None
        last_of_its_value = np.append(values[0] != below, values[1:] != values[:-1])[::-1]
        kinds = (keys[start:stop] & (2**32 - 1))[::-1]
        running = [s + np.cumsum(table[kinds]) for s, table in zip(sums, weights, strict=True)]
        found = [
            np.append(point, r[last_of_its_value]) for point, r in zip(points, running, strict=True)
        ]
        sums, points = [r[-1] for r in running], [f[-1] for f in found]
        yield found


def checked(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Validated float32 scores (ranks for other dtypes) and bool labels. Raises ValueError."""
    scores, labels = np.asarray(scores), np.asarray(labels).astype(bool)
    if scores.shape != labels.shape:
        raise ValueError(f"scores have shape {scores.shape}, labels {labels.shape}")
    if not np.isfinite(scores).all():
        raise ValueError("scores have entries that are not finite")
    if labels.all() or not labels.any():
        raise ValueError("labels are all of one class; the curve is undefined")
    if scores.dtype != np.float32:
        scores = np.unique(scores, return_inverse=True)[1].reshape(labels.shape)
    return scores, labels


def image_auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve of image scores `[N]` against labels `[N]` (1 anomalous).

    Raises ValueError: mismatched shapes, non-finite scores or labels of one class.
    """
    scores, labels = checked(scores, labels)
    keys = np.empty(scores.shape, np.int64)
    for own, *entries in zip(*map(np.atleast_2d, (keys, scores, labels)), strict=True):
        own[:] = _keys(*entries)
    curves = _curves(keys.reshape(-1), HIT_WEIGHTS, ALARM_WEIGHTS)
    area = sum(float(np.trapezoid(y, x)) for y, x in curves)
    return float(area / np.count_nonzero(labels) / np.count_nonzero(~labels))


def image_ap(scores: np.ndarray, labels: np.ndarray) -> float:
    """Average precision of image scores `[N]` (`sklearn.metrics.average_precision_score`)."""
    checked(scores, labels)
    return float(sklearn.metrics.average_precision_score(labels, scores))


def pixel_auroc(score_maps: np.ndarray, masks: np.ndarray) -> float:
    """Area under the ROC curve over all pixels of `[N, H, W]`. Raises ValueError."""
    return image_auroc(score_maps, masks)


def image_f1_max(scores: np.ndarray, labels: np.ndarray) -> float:
    """Largest F1 of image scores `[N]` at or above any threshold, in (0, 1]."""
    scores, labels = checked(scores, labels)
    curves = _curves(_keys(scores, labels), HIT_WEIGHTS, ALARM_WEIGHTS)
    return max(f1_max(hits, alarms, int(labels.sum())) for hits, alarms in curves)


def pro_auc(score_maps: np.ndarray, masks: Masks, max_fpr: float = PRO_LIMITS[0]) -> float:
    """Area under the per-region overlap of `[N, H, W]` up to a false-positive rate, divided by it.

    Mean fraction of each 8-connected ground-truth region at or above a threshold, against the
    fraction of all normal pixels at or above it; trapezoids between thresholds, linear
    interpolation at the limit, in (0, 1]. Definition of MVTec AD's evaluation script.

    Raises ValueError; see `image_auroc`.
    """
    return pixel_metrics(score_maps, masks, (max_fpr, 1.0)).pro_auc


def pixel_metrics(
    score_maps: np.ndarray, masks: Masks, max_fprs: tuple[float, float] = PRO_LIMITS
) -> PixelMetrics:
    """`pixel_auroc`, F1-max over all pixels, and `pro_auc` to both limits, from one sort."""
    numbers, sizes = label(masks)
    score_maps, _ = checked(score_maps, numbers)
    keys = np.empty(numbers.shape, np.int64)
    for own, *entries in zip(keys, score_maps, numbers, strict=True):
        own[:] = _keys(*entries)
    overlap = np.append(0.0, 1 / sizes[1:])
    is_region = (overlap > 0).astype(np.float64)
    normal, anomalous = float(sizes[0]), int(sizes[1:].sum())
    auroc = f1 = 0.0
    limits = normal * np.array(max_fprs)
    pro = np.zeros(2)
    for hits, overlaps, alarms in _curves(keys.reshape(-1), is_region, overlap, 1 - is_region):
        auroc += float(np.trapezoid(hits, alarms))
        f1 = max(f1, f1_max(hits, alarms, anomalous))
        pro += [area_up_to(limit, overlaps, alarms) for limit in limits]
    pro /= (len(sizes) - 1) * limits
    return PixelMetrics(float(auroc / anomalous / normal), f1, *pro.tolist())


def f1_max(hits: np.ndarray, alarms: np.ndarray, anomalous: int) -> float:
    """Largest F1 along curves of counts, `2 TP / (TP + FP + P)`."""
    return float(np.max(2 * hits / (hits + alarms + anomalous)))


def aupimo(
    score_maps: np.ndarray,
    masks: Masks,
    labels: np.ndarray,
    fprs: tuple[float, float] = PIMO_LIMITS,
) -> float:
    """Mean area under the per-image overlap of the anomalous among `[N, H, W]` maps, in [0, 1].

    Fraction of an image's mask at or above a threshold, against the fraction of the pixels of
    normal images (label 0) at or above it, on a logarithmic axis between two rates: its mean over
    that range. Every pixel of the normal images is a threshold. Definition: Bertoldo, Ortego,
    Ahuja and Coelho, AUPIMO, BMVC 2024. An anomalous image without mask does not count.

    Raises ValueError: images of one kind only.
    """
    numbers, _ = label(masks)
    normal = score_maps[labels == 0].ravel()
    found = [maps[own > 0] for maps, own in zip(score_maps, numbers, strict=True) if own.any()]
    if not (normal.size and found):
        raise ValueError("AUPIMO needs normal images, and anomalous ones with masks")
    count = min(int(np.ceil(fprs[1] * normal.size)), normal.size)
    thresholds = np.sort(np.partition(normal, normal.size - count)[-count:])[::-1]
    edges = np.clip(np.arange(count + 1) / normal.size, *fprs)  # between them, one threshold each
    overlaps = np.mean([_fractions(one, thresholds) for one in found], axis=0)
    return float(np.average(overlaps, weights=np.diff(np.log(edges))))


def _fractions(scores: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """Fraction of scores `[P]` at or above each threshold `[T]`."""
    return 1 - np.searchsorted(np.sort(scores), thresholds) / scores.size


def area_up_to(limit: float, y: np.ndarray, x: np.ndarray) -> float:
    """Area under a curve, or a chunk of one, up to x = `limit`."""
    if x[0] >= limit:
        return 0.0
    inside = int(np.searchsorted(x, limit, side="right"))
    x, y = np.append(x[:inside], min(limit, x[-1])), np.append(y[:inside], np.interp(limit, x, y))
    return float(np.trapezoid(y, x))
