"""The shapes that public functions are annotated with are checked, in tests."""

from __future__ import annotations

import jax.numpy as jnp
import pytest
from jaxtyping import TypeCheckError

from pfm_jax.config import MappingConfig
from pfm_jax.model import features, heads, scoring


def test_a_wrong_shape_is_refused() -> None:
    assert scoring.upsample(jnp.ones((2, 4, 4)), 8, 8).shape == (2, 8, 8)
    with pytest.raises(TypeCheckError, match="upsample"):
        scoring.upsample(jnp.ones((4, 4)), 8, 8)
    with pytest.raises(TypeCheckError, match="neighbourhood_mean"):
        features.neighbourhood_mean(jnp.ones((2, 4, 4, 3), jnp.int32), 3)


def test_shapes_that_do_not_fit_each_other_are_refused() -> None:
    rows = jnp.ones((5, 3))
    assert heads.residual(rows, rows, MappingConfig()).shape == (5,)
    with pytest.raises(TypeCheckError, match="residual"):
        heads.residual(rows, jnp.ones((1, 3)), MappingConfig())
