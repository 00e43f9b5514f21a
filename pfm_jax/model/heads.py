"""The heads: MNN and RMNN with their shared unit, the loss, and the residual of the mapping.

Each direction of a `Head` is six 1x1 convolutions, that is, matrix products over rows of positions
`[P, C]`. PFM is one direction, B-PFM both, MB-PFM both at three levels: the same code with another
`MappingConfig`.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array
from jax.tree_util import GetAttrKey
from jax.typing import DTypeLike
from jaxtyping import Float, Key

from pfm_jax.config import MappingConfig
from pfm_jax.model.features import l2_normalize
from pfm_jax.model.layers import (
    Dense,
    Layer,
    apply_dense,
    apply_layers,
    fold_layers,
    init_dense,
    init_layer,
    masked_sum,
)
from pfm_jax.types import DIRECTIONS, Batch, Features, Pair, level_number


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Head:
    """The heads of one level (Table I): direction -> the layers before and after the shared mapping
    unit (SMU), which is the same for both directions.
    """

    encoders: dict[str, tuple[Layer, ...]]
    shared: Dense
    decoders: dict[str, tuple[Layer, ...]]


Heads = dict[str, Head]
"""Level -> head."""

FoldedHeads = dict[str, dict[str, tuple[Dense, ...]]]
"""Level -> direction -> layers for inference, all but the last followed by a ReLU."""


def init(key: Key[Array, ""], channels: dict[str, Pair[int]], config: MappingConfig) -> Heads:
    """Initialises the heads of all levels, each independently of which others there are.

    `channels`: level -> number of channels of source and target features.
    """
    return {
        level: _init_head(
            jax.random.fold_in(key, level_number(level)), channels[level], latent, config.directions
        )
        for level, latent in config.latent.items()
    }


def _init_head(key: Array, channels: Pair[int], c: int, directions: tuple[str, ...]) -> Head:
    shared, *keys = jax.random.split(key, 1 + len(DIRECTIONS))
    encoders: dict[str, tuple[Layer, ...]] = {}
    decoders: dict[str, tuple[Layer, ...]] = {}
    for direction in directions:
        own = jax.random.split(keys[DIRECTIONS.index(direction)], 5)
        a, b = channels if direction == "forward" else channels[::-1]
        encoders[direction] = (
            init_layer(own[0], a, a // 2 + c),
            init_layer(own[1], a // 2 + c, 2 * c),
        )
        decoders[direction] = (
            init_layer(own[2], c, 2 * c),
            init_layer(own[3], 2 * c, b // 2 + c),
            init_layer(own[4], b // 2 + c, b, norm=False),
        )
    return Head(encoders, init_dense(shared, 2 * c, c), decoders)


def split(heads: Heads) -> tuple[Heads, Heads]:
    """Splits heads into what is learned and BatchNorm's running statistics.

    Both have the heads' structure, with None in place of the other's arrays; `merge` undoes it.
    """
    statistics = GetAttrKey("mean"), GetAttrKey("var")
    learned, running = (
        jax.tree_util.tree_map_with_path(
            lambda path, leaf, kept=kept: leaf if (path[-1] in statistics) == kept else None, heads
        )
        for kept in (False, True)
    )
    return learned, running


def merge(learned: Heads, running: Heads) -> Heads:
    """Inverse of `split`."""
    return jax.tree.map(
        lambda a, b: b if a is None else a, learned, running, is_leaf=lambda node: node is None
    )


def inputs_and_targets(
    features: Pair[Array], directions: tuple[str, ...]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Direction -> features that go into the head, and direction -> features to predict."""
    ends = {"forward": features, "backward": features[::-1]}
    return {k: ends[k][0] for k in directions}, {k: ends[k][1] for k in directions}


def apply(
    head: Head,
    inputs: dict[str, Float[Array, "*batch _"]],
    mask: Float[Array, " P"] | None = None,
    dtype: DTypeLike = jnp.float32,
) -> tuple[dict[str, Float[Array, "*batch _"]], Head]:
    """Predicts each direction's target features (eq. 6, 11) from its unit vectors.

    With a `mask` (1 for a row that counts, 0 for padding) BatchNorm trains, without one it uses its
    running statistics. `dtype` is that of the operands of products; parameters, sums and results
    are float32. Returns the head with updated running statistics too.
    """
    encoders, decoders, predictions = {}, {}, {}
    for direction, x in inputs.items():
        x, encoders[direction] = apply_layers(head.encoders[direction], x, mask, dtype)
        x = apply_dense(head.shared, x, dtype)
        x, decoders[direction] = apply_layers(head.decoders[direction], x, mask, dtype)
        predictions[direction] = x
    return predictions, Head(encoders, head.shared, decoders)


def residuals(
    predictions: dict[str, Float[Array, "*batch _"]],
    targets: dict[str, Float[Array, "*batch _"]],
    config: MappingConfig,
) -> dict[str, Float[Array, "*batch"]]:
    """Direction -> squared distance of prediction and target at each position (eq. 8)."""
    if config.normalize_prediction:
        predictions = {k: l2_normalize(p) for k, p in predictions.items()}
    return {k: jnp.sum(jnp.square(p - targets[k]), -1) for k, p in predictions.items()}


def loss(
    heads: Heads, batch: Batch, config: MappingConfig, dtype: DTypeLike = jnp.float32
) -> tuple[Float[Array, ""], tuple[dict[str, Float[Array, ""]], Heads]]:
    """Computes eq. 12, summed over the levels, which share no parameter: three problems in one.

    Returns the sum; the loss of each level, and the heads with updated running statistics.
    """
    losses, updated = {}, {}
    for level, head in heads.items():
        inputs, targets = inputs_and_targets(batch.features[level], config.directions)
        mask = batch.mask[level]
        predictions, updated[level] = apply(head, inputs, mask, dtype)
        distances = residuals(predictions, targets, config)
        means = [
            masked_sum(mask, d) / mask.sum() / targets[k].shape[-1] for k, d in distances.items()
        ]
        losses[level] = sum(means, jnp.float32(0))
    return sum(losses.values(), jnp.float32(0)), (losses, updated)


@jax.jit
def fold(heads: Heads) -> FoldedHeads:
    """Folds trained heads for inference: BatchNorm into the layer before it, and the SMU into the
    layer after it (no activation lies between; it saves a pass over memory, no arithmetic).
    """
    folded: FoldedHeads = {}
    for level, head in heads.items():
        folded[level] = {}
        for direction in head.encoders:
            encoder = fold_layers(head.encoders[direction])
            first, *rest = fold_layers(head.decoders[direction])
            kernel = jnp.dot(head.shared.kernel, first.kernel, precision="highest")
            bias = jnp.dot(head.shared.bias, first.kernel, precision="highest") + first.bias
            folded[level][direction] = (*encoder, Dense(kernel, bias), *rest)
    return folded


def predict(
    layers: tuple[Dense, ...], x: Float[Array, "*batch C"], dtype: DTypeLike = jnp.float32
) -> Float[Array, "*batch K"]:
    """Applies one direction of folded heads."""
    for index, dense in enumerate(layers):
        x = apply_dense(dense, x, dtype)
        if index < len(layers) - 1:
            x = jnp.maximum(x, 0)
    return x


def anomaly_maps(
    folded: FoldedHeads, features: Features, config: MappingConfig, dtype: DTypeLike = jnp.float32
) -> dict[str, Float[Array, "*batch"]]:
    """Level -> mean residual of the directions at each position (eq. 14; eq. 8 for PFM)."""
    maps = {}
    for level, layers in folded.items():
        inputs, targets = inputs_and_targets(features[level], config.directions)
        predictions = {k: predict(layers[k], inputs[k], dtype) for k in config.directions}
        distances = residuals(predictions, targets, config)
        maps[level] = sum(distances.values(), jnp.float32(0)) / len(distances)
    return maps
