"""Heads as they are made, and the product that they are trained with."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pfm_jax.config import MappingConfig
from pfm_jax.model import heads as mapping
from pfm_jax.model import layers
from pfm_jax.types import Pair
from tests.parity.goldens.seeded import seeded_images

LEVEL = "conv3_x"
TABLE_1 = {LEVEL: Pair(128, 512)}


@pytest.mark.parametrize("rows", [16, 13], ids=["in tiles", "not in tiles"])
def test_rounded_product_is_the_product_of_rounded_operands(rows: int) -> None:
    x, w, g = (
        jnp.asarray(seeded_images(shape, seed))
        for seed, shape in enumerate([(rows, 5), (5, 7), (rows, 7)])
    )
    y, back = jax.vjp(layers.rounded_product, x, w)
    dx, dw = back(g)
    x, w, g = (
        np.asarray(v.astype(jnp.bfloat16).astype(jnp.float32), np.float64) for v in (x, w, g)
    )
    for ours, theirs in ((y, x @ w), (dx, g @ w.T), (dw, x.T @ g)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_layer_widths_are_those_of_table_1() -> None:
    head = mapping.init(jax.random.key(0), TABLE_1, MappingConfig(latent={LEVEL: 400}))[LEVEL]
    assert head.shared.kernel.shape == (800, 400)
    widths = {
        f"{name}_{direction}": [layer.dense.kernel.shape for layer in stack]
        for name, stacks in (("encoders", head.encoders), ("decoders", head.decoders))
        for direction, stack in stacks.items()
    }
    assert widths == {
        "encoders_forward": [(128, 464), (464, 800)],
        "decoders_forward": [(400, 800), (800, 656), (656, 512)],
        "encoders_backward": [(512, 656), (656, 800)],
        "decoders_backward": [(400, 800), (800, 464), (464, 128)],
    }


def test_initialisation_is_torchs_uniform() -> None:
    head = mapping.init(jax.random.key(0), TABLE_1, MappingConfig(latent={LEVEL: 400}))[LEVEL]
    for layer in (head.shared, head.decoders["forward"][2].dense):
        bound = layer.kernel.shape[0] ** -0.5
        for leaf in jax.tree.leaves(layer):
            assert abs(leaf).max() <= bound
            assert abs(leaf).max() > 0.98 * bound
            assert float(jnp.std(leaf)) == pytest.approx(bound / 3**0.5, rel=0.1)
