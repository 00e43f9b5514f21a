"""Bootstrap confidence intervals of the metrics over the choice of test images.

Test images are resampled with replacement, stratified by label, and every metric is computed on
each resample. The curves come from per-image histograms, which a resample only reweights.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

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
    found = weights @ np.cumsum(np.pad(histograms, ((0, 0), (1, 0))), axis=1)
    return found / found[:, -1:]


def area(y: np.ndarray, x: np.ndarray, limit: float = 1.0) -> np.ndarray:
    """Area under each curve `[R, T]` up to x = `limit`, divided by `limit`: `[R]`.

    `x` ascends from 0 to 1 along a curve. The segment that reaches the limit is interpolated.
    """
    rows, end = np.arange(len(x)), np.argmax(x >= limit, axis=1)
    x0, x1, y0, y1 = (values[rows, at] for values in (x, y) for at in (end - 1, end))
    y_limit = y0 + (y1 - y0) * (limit - x0) / (x1 - x0)
    stop = end.max() + 1
    widths = np.diff(np.minimum(x[:, :stop], limit))
    before, after = (np.einsum("rt,rt->r", widths, one) for one in (y[:, : stop - 1], y[:, 1:stop]))
    return (before + after - (limit - x0) * (y1 - y_limit)) / 2 / limit


def _interval(values: np.ndarray) -> Interval:
    return np.quantile(values, [(1 - COVERAGE) / 2, (1 + COVERAGE) / 2]).tolist()


def image_interval(scores: np.ndarray, labels: np.ndarray) -> Interval:
    """Interval of `metrics.image_auroc` for scores and labels `[N]`; exact for each resample."""
    values, ranks = np.unique(-scores, return_inverse=True)
    at = np.eye(len(values))[ranks]
    weights = draws(labels)
    hits, alarms = (curves(weights, at * (labels == kind)[:, None]) for kind in (1, 0))
    return _interval(area(hits, alarms))


def pixel_intervals(maps: np.ndarray, masks: metrics.Masks) -> tuple[Interval, Interval]:
    """Intervals of `metrics.pixel_auroc` and `metrics.pro_auc` for maps and masks `[N, H, W]`.

    Thresholds are `BINS` quantiles each of the normal and the anomalous pixels; this changes a
    metric by less than 1e-3.
    """
    regions = metrics.label(masks)
    weights = draws(regions.numbers.any((1, 2)).astype(int))
    hits, overlap, alarms = (curves(weights, h) for h in histograms(maps, regions))
    return _interval(area(hits, alarms)), _interval(area(overlap, alarms, 0.3))


def histograms(maps: np.ndarray, masks: metrics.Masks) -> list[np.ndarray]:
    """Histograms `[N, bins]` of anomalous pixels, region fractions and normal pixels."""
    numbers, sizes = metrics.label(masks)
    steps = np.linspace(0, 1, BINS)
    some = [maps[(numbers > 0) == kind] for kind in (False, True)]
    quantiles = [np.quantile(x[:: max(1, x.size // 10**6)], steps) for x in some]
    edges = np.unique(np.concatenate(quantiles)).astype(maps.dtype)
    found = np.zeros((3, len(maps), len(edges) + 1))

    def fill(index: int) -> None:
        inside = numbers[index] > 0
        normal = np.sort(maps[index][~inside])  # so that only the edges are searched for
        below = np.searchsorted(normal, edges)
        found[2, index] = np.diff(below, prepend=0, append=len(normal))[::-1]
        bins = len(edges) - np.searchsorted(edges, maps[index][inside], side="right")
        found[0, index] = np.bincount(bins, minlength=len(edges) + 1)
        parts = 1 / sizes[numbers[index][inside]]
        found[1, index] = np.bincount(bins, parts, len(edges) + 1)

    with ThreadPoolExecutor() as pool:
        list(pool.map(fill, range(len(maps))))
    return list(found)
