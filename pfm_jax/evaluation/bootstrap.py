"""Bootstrap confidence intervals of the metrics over the choice of test images.

Test images are resampled with replacement, stratified by label, and every metric is computed on
each resample. The curves come from per-image histograms, which a resample only reweights.
"""

from __future__ import annotations

import numpy as np

from pfm_jax import metrics

RESAMPLES = 1000
COVERAGE = 0.95  # nominal
BINS = 1024  # quantiles per class that serve as pixel thresholds

Interval = list[float]  # lower and upper end


def draws(labels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Multiplicity of each image in each resample, `[RESAMPLES, N]`, from labels 0 or 1 `[N]`."""
    rng, weights = np.random.default_rng(seed), np.zeros((RESAMPLES, len(labels)))
    for label in (0, 1):
        (members,) = np.nonzero(labels == label)
        weights[:, members] = rng.multinomial(
            len(members), [1 / len(members)] * len(members), RESAMPLES
        )
    return weights


def curves(weights: np.ndarray, histograms: np.ndarray) -> np.ndarray:
    """Fraction at or above each threshold, per resample: `[R, bins + 1]`.

    Takes the multiplicities `[R, N]` of images and their histograms `[N, bins]`, highest scores
    first.
    """
    sums = np.cumsum(weights @ histograms, axis=1)
    return np.pad(sums, ((0, 0), (1, 0))) / sums[:, -1:]


def area(y: np.ndarray, x: np.ndarray, limit: float = 1.0) -> np.ndarray:
    """Area under each curve `[R, T]` up to x = `limit`, divided by `limit`: `[R]`."""
    return np.array([metrics.area_up_to(limit, *yx) for yx in zip(y, x, strict=True)]) / limit


def _interval(values: np.ndarray) -> Interval:
    return np.quantile(values, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]).tolist()


def image_interval(scores: np.ndarray, labels: np.ndarray) -> Interval:
    """Interval of `metrics.image_auroc` for scores and labels `[N]`; exact for each resample."""
    values, ranks = np.unique(-scores, return_inverse=True)
    at = np.eye(len(values))[ranks]
    weights = draws(labels)
    hits, alarms = (curves(weights, at * (labels == kind)[:, None]) for kind in (1, 0))
    return _interval(area(hits, alarms))


def pixel_intervals(maps: np.ndarray, masks: np.ndarray) -> tuple[Interval, Interval]:
    """Intervals of `metrics.pixel_auroc` and `metrics.pro_auc` for maps and masks `[N, H, W]`.

    Thresholds are `BINS` quantiles each of the normal and the anomalous pixels; this changes a
    metric by less than 1e-3.
    """
    weights = draws(masks.any((1, 2)).astype(int))
    hits, overlap, alarms = (curves(weights, h) for h in histograms(maps, masks))
    return _interval(area(hits, alarms)), _interval(area(overlap, alarms, 0.3))


def histograms(maps: np.ndarray, masks: np.ndarray) -> list[np.ndarray]:
    """Histograms `[N, bins]` of anomalous pixels, region fractions and normal pixels."""
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
