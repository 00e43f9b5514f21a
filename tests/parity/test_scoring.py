"""Upsampling against torch (tests/parity/goldens/upsample.npz)."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from pfm_jax.model import scoring
from tests.parity.goldens.seeded import seeded_images

GOLDEN = np.load(Path(__file__).parent / "goldens" / "upsample.npz")
CASES = sorted({key.split("/")[0] for key in GOLDEN.files if "/" in key})


@pytest.mark.parametrize("case", CASES)
def test_bilinear_is_torchs(case: str) -> None:
    small, large = (tuple(map(int, size.split("x"))) for size in case.split("_to_"))
    maps = jnp.asarray(seeded_images((2, *small)))
    ours = np.asarray(scoring.upsample(maps, *large)).ravel()[GOLDEN[f"{case}/indices"]]
    np.testing.assert_allclose(ours, GOLDEN[f"{case}/values"], rtol=0, atol=2e-6)
