"""Metrics against brute force, scikit-learn and properties."""

from __future__ import annotations

import itertools
from collections import deque

import numpy as np
import pytest
import sklearn.metrics

from pfm_jax import metrics


def regions(mask: np.ndarray) -> list[set[tuple[int, int]]]:
    """8-connected regions by flood fill."""
    left = {(int(y), int(x)) for y, x in zip(*np.nonzero(mask), strict=True)}
    found = []
    while left:
        queue, region = deque([left.pop()]), set()
        while queue:
            y, x = queue.popleft()
            region.add((y, x))
            near = {(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)} & left
            left -= near
            queue.extend(near)
        found.append(region)
    return found


def brute_force_pro(maps: np.ndarray, masks: np.ndarray, limit: float) -> float:
    """The definition, threshold by threshold, region by region."""
    parts = [(i, region) for i, mask in enumerate(masks) for region in regions(mask)]
    curve = [(0.0, 0.0)]
    for threshold in sorted(set(maps.ravel().tolist()), reverse=True):
        overlaps = [np.mean([maps[i][p] >= threshold for p in region]) for i, region in parts]
        curve.append((float((maps[~masks] >= threshold).mean()), float(np.mean(overlaps))))
    area = 0.0
    for (x0, y0), (x1, y1) in itertools.pairwise(curve):
        if x0 < limit and x1 > x0:
            end = min(x1, limit)
            y_end = y0 + (y1 - y0) * (end - x0) / (x1 - x0)
            area += (end - x0) * (y0 + y_end) / 2
    return area / limit


def brute_force_f1_max(scores: np.ndarray, labels: np.ndarray) -> float:
    """The best of scikit-learn's F1 over every threshold."""
    labels, scores = labels.ravel(), scores.ravel()
    return max(sklearn.metrics.f1_score(labels, scores >= one) for one in set(scores.tolist()))


def random_maps(seed: int, levels: int | None) -> tuple[np.ndarray, np.ndarray]:
    """Maps `[3, 12, 11]`, with ties if `levels` is given, and masks of several regions."""
    rng = np.random.default_rng(seed)
    masks = rng.random((3, 12, 11)) < 0.15
    maps = rng.random(masks.shape) + 0.5 * masks
    return (np.floor(maps * levels) if levels else maps).astype(np.float32), masks


@pytest.mark.parametrize("levels", [None, 3, 10], ids=["distinct", "three_values", "ten_values"])
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(4))
def test_pro_is_the_definition(seed: int, limit: float, levels: int | None) -> None:
    maps, masks = random_maps(seed, levels)
    assert metrics.pro_auc(maps, masks, limit) == pytest.approx(
        brute_force_pro(maps, masks, limit), abs=1e-9
    )


def test_diagonal_pixels_are_one_region() -> None:
    masks = np.zeros((1, 8, 8), bool)
    masks[0, [1, 2, 3], [1, 2, 3]] = masks[0, 6, 6] = True
    maps = np.zeros((1, 8, 8))
    maps[0, 6, 6] = 1  # one region of two found before the first false positive
    assert metrics.pro_auc(maps, masks) == pytest.approx(
        brute_force_pro(maps, masks, 0.3), abs=1e-9
    )
    maps[0, 2, 2] = 1
    assert metrics.pro_auc(maps, masks) == pytest.approx(
        brute_force_pro(maps, masks, 0.3), abs=1e-9
    )


def test_only_the_order_counts() -> None:
    maps, masks = random_maps(0, None)
    maps = maps.astype(np.float64)  # so that no rescaling makes ties
    for other in (np.exp(3 * maps), 1e-3 * maps - 7, np.sqrt(maps)):
        assert metrics.pro_auc(other, masks) == metrics.pro_auc(maps, masks)
        assert metrics.pixel_auroc(other, masks) == metrics.pixel_auroc(maps, masks)


def test_perfect_and_worst() -> None:
    _, masks = random_maps(1, None)
    assert metrics.pro_auc(masks.astype(float), masks) == pytest.approx(1, abs=1e-12)
    assert metrics.pixel_auroc(masks, masks) == 1
    assert metrics.pixel_auroc(-masks.astype(float), masks) == 0
    assert metrics.pro_auc(-masks.astype(float), masks) == 0


@pytest.mark.parametrize("levels", [None, 4])
def test_curves_are_those_of_scikit_learn(levels: int | None) -> None:
    maps, masks = random_maps(2, levels)
    expected = sklearn.metrics.roc_auc_score(masks.ravel(), maps.ravel())
    assert metrics.pixel_auroc(maps, masks) == pytest.approx(expected, abs=1e-12)
    assert metrics.image_auroc(maps.ravel(), masks.ravel()) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("levels", [None, 2, 10])
@pytest.mark.parametrize("seed", range(3))
def test_f1_max_is_the_best_over_all_thresholds(seed: int, levels: int | None) -> None:
    maps, masks = random_maps(seed, levels)
    expected = pytest.approx(brute_force_f1_max(maps, masks), abs=1e-12)
    assert metrics.pixel_metrics(maps, masks).pixel_f1_max == expected
    assert metrics.image_f1_max(maps.ravel(), masks.ravel()) == expected


def pimo_maps() -> tuple[np.ndarray, np.ndarray]:
    """Maps of four normal and four anomalous images, of defects that are ever easier to find."""
    rng, masks = np.random.default_rng(0), np.zeros((8, 128, 128), bool)
    masks[4, 10:40, 20:60] = masks[5, 80:85, 80:90] = masks[5, 100:120, 3:9] = True
    masks[6, :9, :9] = masks[7, 60:70, :] = True
    strength = np.linspace(1.5, 4.5, 8)[:, None, None]
    return rng.normal(size=masks.shape) + masks * strength, masks


@pytest.mark.parametrize(
    ("low", "high", "published"),
    [
        (2**-16, 2**-13, 0.46297202579515556),
        (2**-14, 2**-7, 0.7098838741974866),
        (2**-10, 2**-2, 0.9190538308538874),
    ],
)
def test_aupimo_is_that_of_the_public_implementation(
    low: float, high: float, published: float
) -> None:
    """Anomalib 2.7.0, `aupimo_scores(maps, masks, 300_000, (low, high))[4][4:].mean()`."""
    maps, masks = pimo_maps()
    labels = masks.any((1, 2)).astype(int)
    assert metrics.aupimo(maps, masks, labels, (low, high)) == pytest.approx(published, abs=1e-6)
    assert metrics.aupimo(np.exp(maps), metrics.label(masks), labels, (low, high)) == pytest.approx(
        published, abs=1e-6
    )


def test_aupimo_goes_by_labels_and_skips_anomalous_images_without_mask() -> None:
    maps, masks = pimo_maps()
    labels = masks.any((1, 2)).astype(int)
    expected = metrics.aupimo(maps, masks, labels)
    unmarked = np.concatenate([maps, maps[:1] + 9]), np.concatenate([masks, masks[:1]])
    assert metrics.aupimo(*unmarked, np.append(labels, 1)) == expected
    assert metrics.aupimo(*unmarked, np.append(labels, 0)) < expected
    for some in (slice(4), slice(4, None)):
        with pytest.raises(ValueError, match="AUPIMO needs"):
            metrics.aupimo(maps[some], masks[some], labels[some])


def test_average_precision_by_hand() -> None:
    # Precision 1 at the first hit, 2/3 at the second; recall rises by a half at each.
    assert metrics.image_ap(np.array([4, 3, 2, 1]), np.array([1, 0, 1, 0])) == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        ([1.0, 2.0], [0, 0], "one class"),
        ([1.0, 2.0], [1, 1], "one class"),
        ([1.0, np.nan], [0, 1], "finite"),
        ([1.0, 2.0, 3.0], [0, 1], "scores have shape"),
    ],
)
def test_what_can_not_be_measured_is_said(scores: list, labels: list, message: str) -> None:
    for metric in (metrics.image_auroc, metrics.image_ap, metrics.image_f1_max):
        with pytest.raises(ValueError, match=message):
            metric(np.array(scores), np.array(labels))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_all_from_one_sort(dtype: type) -> None:
    rng = np.random.default_rng(5)
    masks = rng.random((4, 20, 30)) < 0.2
    maps = np.round(rng.random((4, 20, 30)) + 0.3 * masks - 0.5, 2).astype(dtype)
    maps[0, 0], maps[0, 1] = 0.0, -0.0  # are equal
    both = metrics.pixel_metrics(maps, masks)
    assert both.pixel_auroc == metrics.pixel_auroc(maps, masks)
    assert both.pro_auc == metrics.pro_auc(maps, masks)
    assert both.pro_auc_05 == metrics.pro_auc(maps, masks, 0.05)
    assert both.pixel_auroc == pytest.approx(
        sklearn.metrics.roc_auc_score(masks.ravel(), maps.ravel()), abs=1e-12
    )


def test_regions_are_labelled_once_for_several_maps() -> None:
    maps, masks = random_maps(3, 4)
    found = metrics.label(masks)
    assert metrics.label(found) is found
    expected = [(i, region) for i, mask in enumerate(masks) for region in regions(mask)]
    assert found.sizes.tolist()[0] == np.count_nonzero(~masks)
    assert len(found.sizes) == 1 + len(expected)
    for image, region in expected:
        numbers = {int(found.numbers[image, y, x]) for y, x in region}
        assert len(numbers) == 1 and found.sizes[numbers.pop()] == len(region)
    assert metrics.pixel_metrics(maps, found) == metrics.pixel_metrics(maps, masks)
