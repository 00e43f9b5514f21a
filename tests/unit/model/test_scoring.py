"""Fusion of maps against its definition and SciPy."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from scipy import ndimage, stats

from pfm_jax.config import PAPER_SCORING, ScoringConfig
from pfm_jax.model import scoring
from pfm_jax.model.folded import over_expected
from tests.parity.goldens.seeded import seeded_images


def test_fused_is_the_mean_and_the_score_its_maximum() -> None:
    levels = {"conv2_x": jnp.ones((2, 4, 4)), "conv4_x": jnp.array([[[3.0]], [[5.0]]])}
    upsampled = {level: scoring.upsample(m, 8, 8) for level, m in levels.items()}
    maps = scoring.fuse(upsampled, PAPER_SCORING)
    np.testing.assert_allclose(
        maps.fused, np.broadcast_to([[[2.0]], [[3.0]]], (2, 8, 8)), rtol=1e-6
    )
    np.testing.assert_allclose(maps.image_scores, [2, 3], rtol=1e-6)
    np.testing.assert_allclose(maps.levels["conv4_x"][1], np.full((8, 8), 5), rtol=1e-6)


def test_smoothing_is_scipys() -> None:
    maps = seeded_images((2, 48, 64))
    expected = ndimage.gaussian_filter(maps, (0, 48 / 64, 1.0))
    np.testing.assert_allclose(scoring.smooth(jnp.asarray(maps), 1 / 64), expected, atol=1e-6)


def test_an_images_mean_expectation_counts_by_its_root() -> None:
    residual = abs(seeded_images((2, 4, 4)).astype(np.float32)) + 0.1
    expected = residual[::-1] ** 2
    mean = stats.gmean(expected, axis=(1, 2), keepdims=True)
    own = residual / (expected / mean) / np.sqrt(mean)
    found = over_expected(jnp.asarray(residual), jnp.log(expected))
    np.testing.assert_allclose(found, own, rtol=1e-5)


def test_relative_levels_are_divided_by_their_own_mean_and_weighted() -> None:
    fine, coarse = abs(seeded_images((2, 3, 16, 16)).astype(np.float32)) + 0.1
    levels = {"conv2_x": jnp.asarray(fine), "conv4_x": jnp.asarray(coarse)}
    how = ScoringConfig(relative={"conv2_x": 0.5}, weights={"conv2_x": 3.0}, smoothing=1 / 16)
    own = fine / fine.mean((1, 2), keepdims=True) ** 0.5
    found = scoring.fuse(levels, replace(how, fusion="arithmetic"))
    expected = ndimage.gaussian_filter((3 * own + coarse) / 4, (0, 1.0, 1.0))
    np.testing.assert_allclose(found.fused, expected, rtol=1e-5, atol=1e-6)
    expected = np.exp(ndimage.gaussian_filter(np.log(own**3 * coarse) / 4, (0, 1.0, 1.0)))
    found = scoring.fuse(levels, how)
    np.testing.assert_allclose(found.fused, expected, rtol=1e-4)


def test_an_image_is_scored_by_the_power_mean_of_a_geometric_map() -> None:
    maps = abs(seeded_images((3, 16, 16)).astype(np.float32)) + 0.1
    level = {"conv4_x": jnp.asarray(maps)}
    found = scoring.fuse(level, ScoringConfig(smoothing=0.0, sharpness=10.0))
    np.testing.assert_allclose(found.fused, maps, rtol=1e-5)
    powers = (maps.astype(np.float64) ** 10).mean((1, 2)) ** 0.1
    np.testing.assert_allclose(found.image_scores, powers, rtol=1e-4)
    blank = {"conv2_x": jnp.zeros((1, 8, 8)), "conv4_x": jnp.zeros((1, 8, 8))}
    assert np.isfinite(scoring.fuse(blank, ScoringConfig()).image_scores).all()
