"""The heads: MNN and RMNN with their shared unit, the loss, and what is left unmapped.

A head is six 1x1 convolutions, that is, matrix products over rows of positions `[P, C]`. PFM is
one direction, B-PFM both, MB-PFM both at three levels: the same code with another `MappingConfig`.
"""

from __future__ import annotations

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array

from pfm_jax.config import MappingConfig
from pfm_jax.features import l2_normalize
from pfm_jax.types import Batch, FeaturePair, Params

MOMENTUM = 0.1
EPS = 1e-5


def exact(mask: Array, x: Array) -> Array:
    """The sum over rows `[P, ...]` that count, in float32 also where products are rounded."""
    return jnp.dot(mask, x, precision="highest")


def linear(inputs: int, features: int, name: str | None = None) -> nn.Dense:
    """A 1x1 convolution, initialised as torch's Conv2d: all uniform within 1/sqrt(inputs)."""

    def bias_init(key: Array, shape: tuple[int, ...], dtype: jnp.dtype = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -(inputs**-0.5), inputs**-0.5)

    kernel_init = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform")
    return nn.Dense(features, kernel_init=kernel_init, bias_init=bias_init, name=name)


class BatchNorm(nn.Module):
    """torch's BatchNorm over rows; `nn.BatchNorm` keeps the biased variance, torch the unbiased."""

    @nn.compact
    def __call__(self, x: Array, mask: Array | None) -> Array:
        """[..., C] -> [..., C]; of `[P, C]` with a mask `[P]`: in training mode."""
        features = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, features)
        bias = self.param("bias", nn.initializers.zeros, features)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, features)
        running_var = self.variable("batch_stats", "var", jnp.ones, features)
        mean, var = running_mean.value, running_var.value
        if mask is not None:
            count = mask.sum()
            mean = exact(mask, x) / count
            var = exact(mask, jnp.square(x - mean[None])) / count
            if not self.is_initializing():
                unbiased = var * count / jnp.maximum(count - 1, 1)
                running_mean.value += MOMENTUM * (mean - running_mean.value)
                running_var.value += MOMENTUM * (unbiased - running_var.value)
        gain = scale / jnp.sqrt(var + EPS)
        shape = (1,) * (x.ndim - 1) + features
        return x * gain.reshape(shape) + (bias - mean * gain).reshape(shape)


class Layers(nn.Module):
    """Linear layers, each but an unnormalised last one followed by BatchNorm and ReLU."""

    widths: tuple[int, ...]
    last_is_linear: bool

    @nn.compact
    def __call__(self, x: Array, mask: Array | None) -> Array:
        """[..., C] -> [..., widths[-1]]; see `BatchNorm` for the mask."""
        for index, width in enumerate(self.widths):
            x = linear(x.shape[-1], width, name=f"linear_{index}")(x)
            if not (self.last_is_linear and index == len(self.widths) - 1):
                x = nn.relu(BatchNorm(name=f"norm_{index}")(x, mask))
        return x


class MappingHeads(nn.Module):
    """The heads of one level (Table I), sharing the mapping unit.

    Attributes:
        channels: direction -> (channels that come in, channels to be predicted).
        latent: c of Table II.
    """

    channels: dict[str, tuple[int, int]]
    latent: int

    def setup(self) -> None:
        """Names the parts; `shared` is the SMU."""
        c = self.latent
        self.encoders = {
            direction: Layers((into // 2 + c, 2 * c), last_is_linear=False)
            for direction, (into, _) in self.channels.items()
        }
        self.shared = linear(2 * c, c)
        self.decoders = {
            direction: Layers((2 * c, out // 2 + c, out), last_is_linear=True)
            for direction, (_, out) in self.channels.items()
        }

    def __call__(self, inputs: dict[str, Array], mask: Array | None = None) -> dict[str, Array]:
        """Direction -> unit vectors `[..., C]` -> direction -> predicted `[..., C']` (eq. 6, 11).

        With a mask `[P]` (1 real, 0 padding) BatchNorm trains, and updates `batch_stats`.
        """
        latents = {k: self.shared(self.encoders[k](x, mask)) for k, x in inputs.items()}
        return {k: self.decoders[k](z, mask) for k, z in latents.items()}


def inputs_and_targets(
    features: FeaturePair, level: str, directions: tuple[str, ...]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """What goes into each direction at a level, and what should come out."""
    source, target = features.source[level], features.target[level]
    inputs = {"forward": source, "backward": target}
    outputs = {"forward": target, "backward": source}
    return {k: inputs[k] for k in directions}, {k: outputs[k] for k in directions}


def make_heads(config: MappingConfig, features: FeaturePair) -> dict[str, MappingHeads]:
    """Level -> heads, for features of these numbers of channels (arrays or shapes)."""
    heads = {}
    for level, latent in config.latent.items():
        inputs, outputs = inputs_and_targets(features, level, config.directions)
        channels = {k: (inputs[k].shape[-1], outputs[k].shape[-1]) for k in config.directions}
        heads[level] = MappingHeads(channels, latent)
    return heads


def init(heads: dict[str, MappingHeads], key: Array) -> tuple[Params, Params]:
    """Fresh parameters and BatchNorm statistics of all levels; consumes `key`."""
    params, batch_stats = {}, {}
    for index, (level, head) in enumerate(sorted(heads.items())):
        inputs = {k: jnp.zeros((2, channels)) for k, (channels, _) in head.channels.items()}
        variables = head.init(jax.random.fold_in(key, index), inputs, jnp.ones(2))
        params[level], batch_stats[level] = variables["params"], variables["batch_stats"]
    return params, batch_stats


def residuals(
    predictions: dict[str, Array], targets: dict[str, Array], config: MappingConfig
) -> dict[str, Array]:
    """Direction -> squared distance `[...]` of prediction and target vectors `[..., C]` (eq. 8)."""
    if config.normalize_prediction:
        predictions = {k: l2_normalize(p) for k, p in predictions.items()}
    return {k: jnp.sum(jnp.square(p - targets[k]), -1) for k, p in predictions.items()}


def loss(
    heads: dict[str, MappingHeads],
    params: Params,
    batch_stats: Params,
    batch: Batch,
    config: MappingConfig,
) -> tuple[Array, tuple[dict[str, Array], Params]]:
    """Eq. 12, summed over the levels, which share no parameter: three problems in one.

    Returns:
        The sum; the loss of each level and the new BatchNorm statistics.
    """
    losses, new_stats = {}, {}
    for level, head in heads.items():
        inputs, targets = inputs_and_targets(batch.features, level, config.directions)
        mask = batch.mask[level]
        predictions, updated = head.apply(
            {"params": params[level], "batch_stats": batch_stats[level]},
            inputs,
            mask,
            mutable="batch_stats",
        )
        distances = residuals(predictions, targets, config)
        means = [exact(mask, d) / mask.sum() / targets[k].shape[-1] for k, d in distances.items()]
        losses[level], new_stats[level] = sum(means, jnp.float32(0)), updated["batch_stats"]
    return sum(losses.values(), jnp.float32(0)), (losses, new_stats)


def anomaly_maps(
    heads: dict[str, MappingHeads],
    params: Params,
    batch_stats: Params,
    features: FeaturePair,
    config: MappingConfig,
) -> dict[str, Array]:
    """Level -> anomaly map `[B, h, w]` of features `[B, h, w, C]` (eq. 14; eq. 8 for PFM)."""
    maps = {}
    for level, head in heads.items():
        inputs, targets = inputs_and_targets(features, level, config.directions)
        variables = {"params": params[level], "batch_stats": batch_stats[level]}
        predictions: Any = head.apply(variables, inputs)
        distances = residuals(predictions, targets, config)
        maps[level] = sum(distances.values(), jnp.float32(0)) / len(distances)
    return maps
