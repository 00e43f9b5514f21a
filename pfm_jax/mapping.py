"""The heads: MNN and RMNN with their shared unit, the loss, and what is left unmapped.

A head is six 1x1 convolutions, that is, matrix products over rows of positions `[P, C]`. PFM is
one direction, B-PFM both, MB-PFM both at three levels: the same code with another `MappingConfig`.
"""

from __future__ import annotations

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

from pfm_jax.config import MappingConfig
from pfm_jax.features import l2_normalize
from pfm_jax.layers import EPS, Layers, Linear, exact, product
from pfm_jax.types import LEVELS, Batch, FeaturePair, Params, Standard


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FoldedHeads:
    """All that was learned from normal images, as inference wants it.

    Attributes:
        layers: level -> direction -> kernel `[C, C']` and bias `[C']` of each layer, all but the
            last with a ReLU after it.
        standard: what maps are standardised by, if they are.
    """

    layers: dict[str, dict[str, list[tuple[Array, Array]]]]
    standard: Standard | None = None


class MappingHeads(nn.Module):
    """The heads of one level (Table I), sharing the mapping unit.

    Attributes:
        channels: direction -> (channels that come in, channels to be predicted).
        latent: c of Table II.
        dtype: of the operands of the products.
    """

    channels: dict[str, tuple[int, int]]
    latent: int
    dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Names the parts; `shared` is the SMU."""
        c = self.latent
        self.encoders = {
            direction: Layers((into // 2 + c, 2 * c), False, self.dtype)
            for direction, (into, _) in self.channels.items()
        }
        self.shared = Linear(c, self.dtype)
        self.decoders = {
            direction: Layers((2 * c, out // 2 + c, out), True, self.dtype)
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


def make_heads(
    config: MappingConfig, features: FeaturePair, dtype: DTypeLike = jnp.float32
) -> dict[str, MappingHeads]:
    """Level -> heads, for features of these numbers of channels (arrays or shapes).

    `dtype` is that of the operands of the products; parameters, sums and results are float32.
    """
    heads = {}
    for level, latent in config.latent.items():
        inputs, outputs = inputs_and_targets(features, level, config.directions)
        channels = {k: (inputs[k].shape[-1], outputs[k].shape[-1]) for k in config.directions}
        heads[level] = MappingHeads(channels, latent, dtype)
    return heads


def init(heads: dict[str, MappingHeads], key: Array) -> tuple[Params, Params]:
    """Fresh parameters and BatchNorm statistics of all levels; consumes `key`.

    Those of a level do not depend on which others there are.
    """
    params, batch_stats = {}, {}
    for level, head in heads.items():
        inputs = {k: jnp.zeros((2, channels)) for k, (channels, _) in head.channels.items()}
        variables = head.init(jax.random.fold_in(key, LEVELS.index(level)), inputs, jnp.ones(2))
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


def fold(params: Params, batch_stats: Params) -> FoldedHeads:
    """Trained heads for inference: BatchNorm goes into the layer before it, and the SMU into the
    layer after it, with which it shares no activation. (Their product has as many entries as the
    two, so that saves a pass over memory, no arithmetic.)
    """
    folded: dict[str, dict[str, list[tuple[Array, Array]]]] = {level: {} for level in params}
    for level, tree in params.items():
        for name in [k for k in tree if k.startswith("encoders_")]:
            direction = name.removeprefix("encoders_")
            both = ("encoders_" + direction, "decoders_" + direction)
            encoder, decoder = (_fold_layers(tree[k], batch_stats[level][k]) for k in both)
            shared, first = tree["shared"], decoder[0]
            kernel = jnp.dot(shared["kernel"], first[0], precision="highest")
            bias = jnp.dot(shared["bias"], first[0], precision="highest") + first[1]
            folded[level][direction] = [*encoder, (kernel, bias), *decoder[1:]]
    return FoldedHeads(folded)


def _fold_layers(params: Params, batch_stats: Params) -> list[tuple[Array, Array]]:
    layers = []
    for index in range(sum(name.startswith("linear_") for name in params)):
        linear, norm = params[f"linear_{index}"], params.get(f"norm_{index}")
        kernel, bias = linear["kernel"], linear["bias"]
        if norm is not None:
            stats = batch_stats[f"norm_{index}"]
            gain = norm["scale"] / jnp.sqrt(stats["var"] + EPS)
            kernel = kernel * gain[None]
            bias = (bias - stats["mean"]) * gain + norm["bias"]
        layers.append((kernel, bias))
    return layers


def predict(layers: list[tuple[Array, Array]], x: Array, dtype: DTypeLike = jnp.float32) -> Array:
    """One direction of `fold`ed heads: `[..., C]` -> `[..., C']`, products of `dtype`."""
    rows = x.reshape(-1, x.shape[-1])
    for index, (kernel, bias) in enumerate(layers):
        rows = product(rows, kernel, dtype) + bias[None]
        if index < len(layers) - 1:
            rows = jnp.maximum(rows, 0)
    return rows.reshape(*x.shape[:-1], -1)


def anomaly_maps(
    folded: FoldedHeads,
    features: FeaturePair,
    config: MappingConfig,
    dtype: DTypeLike = jnp.float32,
) -> dict[str, Array]:
    """Level -> anomaly map `[B, h, w]` of features `[B, h, w, C]` (eq. 14; eq. 8 for PFM)."""
    maps = {}
    for level, heads in folded.layers.items():
        inputs, targets = inputs_and_targets(features, level, config.directions)
        predictions = {k: predict(heads[k], inputs[k], dtype) for k in config.directions}
        distances = residuals(predictions, targets, config)
        maps[level] = sum(distances.values(), jnp.float32(0)) / len(distances)
    return maps
