"""How far the metrics might be off by the choice of test images: bootstrap intervals.

Test images are drawn anew, with replacement, good and anomalous ones apart; every metric is
computed of each draw. The curves come from histograms of each image, which a draw only weights.
"""

from __future__ import annotations

import numpy as np

from pfm_jax import metrics

RESAMPLES = 1000
COVERAGE = 0.95
BINS = 1024

Interval = list[float]
"""Its two ends."""


def draws(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """`[RESAMPLES, N]`: how often each image, labelled 0 or 1, is in each draw."""
    rng, weights = np.random.default_rng(seed), np.zeros((RESAMPLES, len(labels)))
    for label in (0, 1):
        (members,) = np.nonzero(labels == label)
        weights[:, members] = rng.multinomial(
            len(members), [1 / len(members)] * len(members), RESAMPLES
        )
    return weights


def curves(weights: np.ndarray, histograms: np.ndarray) -> np.ndarray:
    """Per draw `[R, N]`, what lies at or above each threshold, of its whole: `[R, bins + 1]`.

    Args:
        weights: of the images.
        histograms: of each image, the highest scores first, `[N, bins]`.
    """
    sums = np.cumsum(weights @ histograms, axis=1)
    return np.pad(sums, ((0, 0), (1, 0))) / sums[:, -1:]


def area(y: np.ndarray, x: np.ndarray, limit: float = 1.0) -> np.ndarray:
    """Below each curve `[R, T]` up to x = `limit`, divided by it: `[R]`."""
    pairs = zip(y, x, strict=True)
    return np.array([metrics.area_up_to(limit, ys, xs) / limit for ys, xs in pairs])


def _interval(values: np.ndarray) -> Interval:
    return np.quantile(values, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]).tolist()


def image_interval(scores: np.ndarray, labels: np.ndarray) -> Interval:
    """Of `metrics.image_auroc` of scores `[N]` against labels `[N]`; exact for each draw."""
    values, ranks = np.unique(-scores, return_inverse=True)
    at = np.eye(len(values))[ranks]
    weights = draws(labels)
    hits, alarms = (curves(weights, at * (labels == kind)[:, None]) for kind in (1, 0))
    return _interval(area(hits, alarms))


def pixel_intervals(maps: np.ndarray, masks: np.ndarray) -> tuple[Interval, Interval]:
    """Of `metrics.pixel_auroc` and `metrics.pro_auc` of `[N, H, W]`.

    Thresholds are `BINS` quantiles of the normal and as many of the anomalous pixels, which moves
    a metric by less than 1e-3.
    """
    weights = draws(masks.any((1, 2)).astype(int))
    hits, overlap, alarms = (curves(weights, h) for h in histograms(maps, masks))
    return _interval(area(hits, alarms)), _interval(area(overlap, alarms, 0.3))


def histograms(maps: np.ndarray, masks: np.ndarray) -> list[np.ndarray]:
    """Of the anomalous pixels, of the parts of regions and of the normal pixels: `[N, bins]`."""
    steps = np.linspace(0, 1, BINS)
    some = [maps[masks == kind] for kind in (False, True)]
    quantiles = [np.quantile(x[:: max(1, x.size // 10**6)], steps) for x in some]
    edges = np.unique(np.concatenate(quantiles)).astype(maps.dtype)
    found = np.zeros((3, len(maps), len(edges) + 1))
    for index, (score_map, mask) in enumerate(zip(maps, masks, strict=True)):
        bins = len(edges) - np.searchsorted(edges, score_map.ravel(), side="right")
        numbers, parts = metrics.regions(mask)
        part = np.append(0.0, parts)[numbers.ravel()]
        for own, weights in zip(found, (mask.ravel(), part, ~mask.ravel()), strict=True):
            own[index] = np.bincount(bins, weights, found.shape[-1])
    return list(found)
