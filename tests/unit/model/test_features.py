"""Features averaged over neighbourhoods, against their definition."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from pfm_jax.model import features
from tests.parity.goldens.seeded import seeded_images


@pytest.mark.parametrize("side", [1, 3, 5])
def test_averaged_by_its_definition(side: int) -> None:
    given = seeded_images((2, 6, 7, 5)) - 0.5
    unit = given / np.linalg.norm(given, axis=-1, keepdims=True)
    expected, half = np.zeros_like(unit), side // 2
    for row in range(6):
        for column in range(7):
            rows = slice(max(0, row - half), row + half + 1)
            columns = slice(max(0, column - half), column + half + 1)
            mean = unit[:, rows, columns].mean((1, 2))
            expected[:, row, column] = mean / np.linalg.norm(mean, axis=-1, keepdims=True)
    np.testing.assert_allclose(
        features.neighbourhood_mean(jnp.asarray(unit), side), expected, atol=1e-6
    )
