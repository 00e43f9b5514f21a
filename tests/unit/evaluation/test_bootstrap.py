"""Bootstrap intervals against resampling by hand, and against the exact metrics."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics

from pfm_jax import metrics
from pfm_jax.evaluation import bootstrap


def maps_and_masks(images: int = 24, size: int = 32) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    masks = np.zeros((images, size, size), bool)
    for index in range(images // 2):
        masks[index, 3 : 8 + index, 5:12] = True
        masks[index, 20:24, 20 : 22 + index % 5] = True
    maps = rng.gamma(2, 1, masks.shape) + 2 * masks * rng.random((images, 1, 1))
    return maps.astype(np.float32), masks


def test_draws_are_of_as_many_images_of_each_kind() -> None:
    labels = np.array([0] * 5 + [1] * 9)
    weights = bootstrap.draws(labels)
    assert (weights[:, :5].sum(1) == 5).all()
    assert (weights[:, 5:].sum(1) == 9).all()
    np.testing.assert_allclose(weights.mean(0), 1, atol=0.15)
    np.testing.assert_array_equal(weights, bootstrap.draws(labels))


@pytest.mark.parametrize("ties", [False, True])
def test_image_interval_is_that_of_weighted_aurocs(ties: bool) -> None:
    rng = np.random.default_rng(1)
    labels = (np.arange(50) % 3 > 0).astype(int)
    scores = rng.normal(labels, 1.0)
    scores = scores.round(0 if ties else 8).astype(np.float32)
    expected = np.quantile(
        [
            sklearn.metrics.roc_auc_score(labels, scores, sample_weight=weights)
            for weights in bootstrap.draws(labels)
        ],
        [0.025, 0.975],
    )
    np.testing.assert_allclose(bootstrap.image_interval(scores, labels), expected, rtol=1e-9)


def test_pixel_curves_of_one_draw_are_the_exact_metrics_of_its_images() -> None:
    maps, masks = maps_and_masks()
    weights = bootstrap.draws(masks.any((1, 2)).astype(int))[:3]
    hits, overlap, alarms = (
        bootstrap.curves(weights, h) for h in bootstrap.histograms(maps, masks)
    )
    pixel, pro = bootstrap.area(hits, alarms), bootstrap.area(overlap, alarms, 0.3)
    for draw, counts in enumerate(weights.astype(int)):
        some = np.repeat(np.arange(len(maps)), counts)
        assert pixel[draw] == pytest.approx(metrics.pixel_auroc(maps[some], masks[some]), abs=1e-3)
        assert pro[draw] == pytest.approx(metrics.pro_auc(maps[some], masks[some]), abs=1e-3)


@pytest.mark.parametrize("limit", [0.05, 0.3, 0.5, 1.0])
def test_areas_are_those_of_interpolated_curves(limit: float) -> None:
    rng = np.random.default_rng(2)
    steps = rng.integers(0, 3, (2, 40, 30)) * rng.random((2, 40, 30))  # a third of them flat
    y, x = np.pad(steps.cumsum(-1), ((0, 0), (0, 0), (1, 0)))
    y, x = y / y[:, -1:], x / x[:, -1:]
    x[0] = np.linspace(0, 1, 31)
    x[1] = np.repeat([0, 0.3, 0.5, 1], [5, 10, 10, 6])  # vertical at limits
    expected = []
    for own_y, own_x in zip(y, x, strict=True):
        area = 0.0
        for x0, x1, y0, y1 in zip(own_x[:-1], own_x[1:], own_y[:-1], own_y[1:], strict=True):
            if x0 < min(x1, limit):
                end = min(x1, limit)
                y_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
                area += (end - x0) * (y0 + y_end) / 2
        expected.append(area / limit)
    np.testing.assert_allclose(bootstrap.area(y, x, limit), expected, rtol=0, atol=1e-12)


def test_every_pixel_and_region_is_in_one_bin() -> None:
    maps, masks = maps_and_masks()
    hits, overlap, alarms = bootstrap.histograms(maps, masks)
    np.testing.assert_array_equal(hits.sum(1), masks.sum((1, 2)))
    np.testing.assert_array_equal(alarms.sum(1), (~masks).sum((1, 2)))
    np.testing.assert_allclose(overlap.sum(1), [2] * 12 + [0] * 12)


def test_curves_are_exact_where_every_score_is_a_threshold() -> None:
    maps, masks = maps_and_masks()
    maps = maps.clip(0, 5).round(1)
    once = np.ones((1, len(maps)))
    hits, overlap, alarms = (bootstrap.curves(once, h) for h in bootstrap.histograms(maps, masks))
    found = bootstrap.area(hits, alarms)[0], bootstrap.area(overlap, alarms, 0.3)[0]
    expected = metrics.pixel_auroc(maps, masks), metrics.pro_auc(maps, masks)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_intervals_hold_the_metrics_and_shrink_with_more_images() -> None:
    widths = []
    for images in (24, 96):
        maps, masks = maps_and_masks(images)
        found = bootstrap.pixel_intervals(maps, masks)
        values = metrics.pixel_auroc(maps, masks), metrics.pro_auc(maps, masks)
        for (low, high), value in zip(found, values, strict=True):
            assert low < value < high
        widths.append([high - low for low, high in found])
    assert widths[1][0] < 0.7 * widths[0][0]
