"""Metrics on a device against brute force, scikit-learn and the host's; all on a CPU here."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest
import sklearn.metrics

from pfm_jax import datasets, metrics
from pfm_jax.datasets import images
from pfm_jax.evaluation import device_metrics
from pfm_jax.evaluation.evaluate import _pixel_metrics
from tests.unit.test_metrics import brute_force_f1_max, brute_force_pro, random_maps


def assert_as_on_the_host(maps: np.ndarray, masks: np.ndarray, limit: float = 0.3) -> None:
    limits = (limit, 0.1)
    found, expected = (m.pixel_metrics(maps, masks, limits) for m in (device_metrics, metrics))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("levels", [None, 3, 10], ids=["distinct", "three_values", "ten_values"])
@pytest.mark.parametrize("limit", [0.05, 0.3, 1.0])
@pytest.mark.parametrize("seed", range(3))
def test_all_are_the_definition(seed: int, limit: float, levels: int | None) -> None:
    maps, masks = random_maps(seed, levels)
    found = device_metrics.pixel_metrics(maps, masks, (limit, 0.1))
    expected = sklearn.metrics.roc_auc_score(masks.ravel(), maps.ravel())
    assert found.pixel_auroc == pytest.approx(expected, abs=1e-12)
    assert found.pixel_f1_max == pytest.approx(brute_force_f1_max(maps, masks), abs=1e-12)
    assert found.pro_auc == pytest.approx(brute_force_pro(maps, masks, limit), abs=1e-12)
    assert found.pro_auc_05 == pytest.approx(brute_force_pro(maps, masks, 0.1), abs=1e-12)


@pytest.mark.parametrize("shape", [(1, 2, 2), (3, 7, 5), (2, 16, 16), (5, 33, 31)])
@pytest.mark.parametrize("digits", [0, 1, 7])
def test_all_sizes_are_as_on_the_host(shape: tuple[int, int, int], digits: int) -> None:
    rng = np.random.default_rng(0)
    masks = rng.random(shape) < 0.2
    masks[0, 0, :2] = True, False
    maps = (rng.normal(size=shape) + masks).round(digits).astype(np.float32)
    assert_as_on_the_host(maps, masks)
    assert_as_on_the_host(maps.astype(np.float64), masks)


def test_ties_of_all_pixels_and_of_zeros() -> None:
    _, masks = random_maps(0, None)
    for constant in (0, -7.5, np.finfo(np.float32).max):
        maps = np.full(masks.shape, constant, np.float32)
        assert_as_on_the_host(maps, masks)
        found = device_metrics.pixel_metrics(maps, masks)
        f1 = 2 * masks.mean() / (1 + masks.mean())
        np.testing.assert_allclose(found, (0.5, f1, 0.15, 0.025))
    zeros = np.array([0.0, -0.0, 1e-40, -1e-40], np.float32)  # the first two are equal
    assert_as_on_the_host(np.random.default_rng(1).choice(zeros, masks.shape), masks)
    signs = np.where(masks, np.float32(0.0), np.float32(-0.0))
    assert device_metrics.pixel_metrics(signs, masks)[0] == 0.5


def test_sums_are_exact_where_32_bits_are_too_few() -> None:
    masks = np.zeros((8, 256, 256), bool)
    masks[:2, ::3, ::3] = True  # 14,792 regions of one pixel
    masks[4:, 10:, 10:] = True
    maps = np.random.default_rng(0).integers(0, 4, masks.shape).astype(np.float32) + masks
    regions = metrics.label(masks)
    found, expected = (m.pixel_metrics(maps, regions) for m in (device_metrics, metrics))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_perfect_and_worst() -> None:
    _, masks = random_maps(1, None)
    perfect = masks.astype(np.float32)
    np.testing.assert_allclose(
        device_metrics.pixel_metrics(perfect, masks), (1, 1, 1, 1), atol=1e-12
    )
    worst = device_metrics.pixel_metrics(-perfect, masks)
    assert (worst.pixel_auroc, worst.pro_auc, worst.pro_auc_05) == (0, 0, 0)


def test_similar_sizes_share_a_program() -> None:
    def programs(count: int) -> int:
        masks = np.zeros((count, 8, 8), bool)
        masks[:, :2] = True
        maps = np.random.default_rng(0).random(masks.shape).astype(np.float32)
        assert_as_on_the_host(maps, masks)
        return device_metrics._areas._cache_size()

    first = programs(129)
    assert [programs(n) - first for n in (130, 200, 256, 257)] == [0, 0, 0, 1]


@pytest.mark.parametrize("platform", ["cuda", "rocm", "tpu"])
def test_accelerators_can_have_the_program(platform: str) -> None:
    pixels = jax.ShapeDtypeStruct((2**24,), np.int32)
    with jax.enable_x64(True):
        traced = device_metrics._areas.trace(pixels, pixels, np.float64(1))
        assert "stablehlo.sort" in traced.lower(lowering_platforms=(platform,)).as_text()


def test_what_can_not_be_measured_is_said() -> None:
    maps, masks = random_maps(0, None)
    with pytest.raises(ValueError, match="one class"):
        device_metrics.pixel_metrics(maps, np.zeros_like(masks))
    with pytest.raises(ValueError, match="scores have shape"):
        device_metrics.pixel_metrics(maps[:2], masks)
    maps[0, 0, 0] = np.inf
    with pytest.raises(ValueError, match="finite"):
        device_metrics.pixel_metrics(maps, masks)


def test_evaluation_is_on_the_device_where_that_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    maps, masks = random_maps(0, None)
    regions = metrics.label(masks)
    monkeypatch.setattr(device_metrics, "pixel_metrics", lambda *_: "device")
    monkeypatch.setattr(metrics, "pixel_metrics", lambda *_: "host")
    assert _pixel_metrics(maps, regions) == "host"
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert _pixel_metrics(maps, regions) == "device"
    monkeypatch.setattr(device_metrics, "MOST_PIXELS", maps.size)  # and not a power of two
    assert _pixel_metrics(maps, regions) == "host"


@pytest.mark.slow
def test_real_masks(real_data: Path) -> None:
    dataset = datasets.load("mvtec_ad", str(real_data), "screw")
    masks = images.masks(dataset.test, 128)
    maps = np.random.default_rng(0).gamma(2, 1, masks.shape) + masks
    assert_as_on_the_host(maps.astype(np.float32), masks)
    assert_as_on_the_host(maps.round(1).astype(np.float32), masks)
