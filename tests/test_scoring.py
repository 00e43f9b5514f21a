"""Upsampling against torch (tests/goldens/upsample.npz), fusion against its definition."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from pfm_jax import scoring
from tests.goldens.seeded import seeded_images

GOLDEN = np.load(Path(__file__).parent / "goldens" / "upsample.npz")
CASES = sorted({key.split("/")[0] for key in GOLDEN.files if "/" in key})


@pytest.mark.parametrize("case", CASES)
def test_bilinear_is_torchs(case: str) -> None:
    small, large = (tuple(map(int, size.split("x"))) for size in case.split("_to_"))
    maps = jnp.asarray(seeded_images((2, *small)))
    ours = np.asarray(scoring.upsample(maps, *large)).ravel()[GOLDEN[f"{case}/indices"]]
    np.testing.assert_allclose(ours, GOLDEN[f"{case}/values"], rtol=0, atol=2e-6)


def test_fused_is_the_mean_and_the_score_its_maximum() -> None:
    levels = {"conv2_x": jnp.ones((2, 4, 4)), "conv4_x": jnp.array([[[3.0]], [[5.0]]])}
    maps = scoring.fuse({level: scoring.upsample(m, 8, 8) for level, m in levels.items()})
    np.testing.assert_allclose(
        maps.fused, np.broadcast_to([[[2.0]], [[3.0]]], (2, 8, 8)), rtol=1e-6
    )
    np.testing.assert_allclose(maps.image_scores, [2, 3], rtol=1e-6)
    np.testing.assert_allclose(maps.levels["conv4_x"][1], np.full((8, 8), 5), rtol=1e-6)
