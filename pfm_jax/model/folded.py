"""Heads folded for inference, and the maps of their residuals."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike
from jaxtyping import Float

from pfm_jax.config import MappingConfig
from pfm_jax.model.heads import Heads, inputs_and_targets, residual
from pfm_jax.model.layers import Dense, apply_dense, fold_layers
from pfm_jax.types import Features

LEAST_RESIDUAL = 1e-6
"""Floor for residuals whose logarithm is taken."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FoldedHead:
    """One direction of a head, for inference.

    Attributes:
        layers: all but the last are followed by a ReLU.
        expected: see `heads.Head`.
    """

    layers: tuple[Dense, ...]
    expected: Dense


FoldedHeads = dict[str, dict[str, FoldedHead]]
"""Level -> direction -> head for inference."""


def fold(heads: Heads) -> FoldedHeads:
    """Folds trained heads for inference: BatchNorm into the layer before it, and the SMU into the
    layer after it (no activation lies between; it saves a pass over memory, no arithmetic).

    In a program, or of NumPy arrays by NumPy: done once, it is not worth compiling.
    """
    folded: FoldedHeads = {}
    for level, head in heads.items():
        folded[level] = {}
        for direction in head.encoders:
            encoder = fold_layers(head.encoders[direction])
            first, *rest = fold_layers(head.decoders[direction])
            with jax.default_matmul_precision("highest"):
                kernel = head.shared.kernel @ first.kernel
                bias = head.shared.bias @ first.kernel + first.bias
            layers = (*encoder, Dense(kernel, bias), *rest)
            folded[level][direction] = FoldedHead(layers, head.expected[direction])
    return folded


def predict(
    head: FoldedHead, x: Float[Array, "*batch C"], dtype: DTypeLike = jnp.float32
) -> tuple[Float[Array, "*batch K"], Float[Array, "*batch H"]]:
    """Predicts target features by one direction; returns the last hidden layer's values too."""
    for dense in head.layers[:-1]:
        x = jnp.maximum(apply_dense(dense, x, dtype), 0)
    return apply_dense(head.layers[-1], x, dtype), x


def log_residual(residual: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
    """Natural logarithm of a residual, of at least `LEAST_RESIDUAL`."""
    return jnp.log(jnp.maximum(residual, LEAST_RESIDUAL))


def anomaly_maps(
    folded: FoldedHeads,
    features: Features,
    config: MappingConfig,
    expected: tuple[str, ...] = (),
    dtype: DTypeLike = jnp.float32,
) -> dict[str, Float[Array, "*batch"]]:
    """Level -> mean residual of the directions at each position (eq. 14; eq. 8 for PFM).

    At the levels `expected`, of features `[B, h, w, C]`, over the residuals to expect; see
    `over_expected`.
    """
    maps = {}
    for level, own in folded.items():
        inputs, targets = inputs_and_targets(features[level], own)
        total = jnp.float32(0)
        for direction, head in own.items():
            prediction, hidden = predict(head, inputs[direction], dtype)
            distance = residual(prediction, targets[direction], config)
            if level in expected:
                logs = apply_dense(head.expected, hidden)[..., 0]
                distance = over_expected(distance, logs)
            total += distance
        maps[level] = total / len(own)
    return maps


def over_expected(
    residual: Float[Array, "B h w"], log_expected: Float[Array, "B h w"]
) -> Float[Array, "B h w"]:
    """Divides residuals by those to expect, but for half the (logarithmic) mean of these over an
    image or tile: divided by all of it, an image that is unusual all over would hide itself.
    """
    mean = log_expected.mean((1, 2), keepdims=True)
    return residual * jnp.exp(mean / 2 - log_expected)
