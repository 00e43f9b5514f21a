"""Fusion of maps against its definition and SciPy."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from scipy import ndimage

from pfm_jax.config import ScoringConfig
from pfm_jax.model import scoring
from tests.parity.goldens.seeded import seeded_images


def test_fused_is_the_mean_and_the_score_its_maximum() -> None:
    levels = {"conv2_x": jnp.ones((2, 4, 4)), "conv4_x": jnp.array([[[3.0]], [[5.0]]])}
    upsampled = {level: scoring.upsample(m, 8, 8) for level, m in levels.items()}
    maps = scoring.fuse(upsampled, ScoringConfig(smoothing=0.0, relative=False))
    np.testing.assert_allclose(
        maps.fused, np.broadcast_to([[[2.0]], [[3.0]]], (2, 8, 8)), rtol=1e-6
    )
    np.testing.assert_allclose(maps.image_scores, [2, 3], rtol=1e-6)
    np.testing.assert_allclose(maps.levels["conv4_x"][1], np.full((8, 8), 5), rtol=1e-6)


def test_smoothing_is_scipys() -> None:
    maps = seeded_images((2, 48, 64))
    expected = ndimage.gaussian_filter(maps, (0, 48 / 64, 1.0))
    np.testing.assert_allclose(scoring.smooth(jnp.asarray(maps), 1 / 64), expected, atol=1e-6)


def test_scoring_does_what_the_recipe_says() -> None:
    """Smoothed, then by the root of its mean: four times the residuals are twice the score."""
    maps = seeded_images((1, 16, 16)).astype(np.float32)
    levels = {"conv2_x": jnp.asarray(np.concatenate([maps, 4 * maps, 0 * maps]))}
    found = scoring.fuse(levels, ScoringConfig(smoothing=1 / 16))
    expected = ndimage.gaussian_filter(maps[0], 1.0)
    np.testing.assert_allclose(found.fused[0], expected / expected.mean() ** 0.5, atol=1e-6)
    np.testing.assert_allclose(found.image_scores / found.image_scores[0], [1, 2, 0], rtol=1e-5)
    np.testing.assert_array_equal(found.image_scores, np.asarray(found.fused).max((1, 2)))
    own = scoring.fuse(levels, ScoringConfig(smoothing=1 / 16, relative=False))
    np.testing.assert_allclose(own.fused[0], expected, atol=1e-6)
