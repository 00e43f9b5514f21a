"""The heads: MNN and RMNN with their shared unit, the loss, and the residual of the mapping.

Each direction of a `Head` is six 1x1 convolutions, that is, matrix products over rows of positions
`[P, C]`. PFM is one direction, B-PFM both, MB-PFM both at three levels: the same code with another
`MappingConfig`.
"""

import dataclasses
from collections.abc import Collection

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
    init_dense,
    init_layer,
    masked_sum,
)
from pfm_jax.types import DIRECTIONS, Batch, Pair, Params, directions, level_number


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Head:
    """The heads of one level (Table I).

    Attributes:
        encoders, decoders: direction -> the layers before and after the shared mapping unit (SMU),
            which is the same for both directions.
        expected: direction -> the logarithm of the residual to expect, linear in the last hidden
            layer; zero until `training.expectation` fits it, once all else is trained.
    """

    encoders: dict[str, tuple[Layer, ...]]
    shared: Dense
    decoders: dict[str, tuple[Layer, ...]]
    expected: dict[str, Dense]


Heads = dict[str, Head]
"""Level -> head."""


def init(key: Key[Array, ""], channels: dict[str, Pair[int]], config: MappingConfig) -> Heads:
    """Initialises the heads of all levels, each independently of which others there are.

    `channels`: level -> number of channels of source and target features.
    """
    return {
        level: _init_head(
            jax.random.fold_in(key, level_number(level)),
            channels[level],
            latent,
            directions(level, config.directions),
        )
        for level, latent in config.latent.items()
    }


def _init_head(key: Array, channels: Pair[int], c: int, mapped: tuple[str, ...]) -> Head:
    shared, *keys = jax.random.split(key, 1 + len(DIRECTIONS))
    encoders: dict[str, tuple[Layer, ...]] = {}
    decoders: dict[str, tuple[Layer, ...]] = {}
    expected: dict[str, Dense] = {}
    for direction in mapped:
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
        expected[direction] = Dense(jnp.zeros((b // 2 + c, 1)), jnp.zeros(1))
    return Head(encoders, init_dense(shared, 2 * c, c), decoders, expected)


def split(heads: Params) -> tuple[Params, Params]:
    """Splits parameters into what gradients train, and statistics and what is expected.

    Both have the same structure, with None in place of the other's arrays; `merge` undoes it.
    """
    others = {GetAttrKey("mean"), GetAttrKey("var"), GetAttrKey("expected")}
    learned, running = (
        jax.tree_util.tree_map_with_path(
            lambda path, leaf, kept=kept: None if others.isdisjoint(path) == kept else leaf, heads
        )
        for kept in (False, True)
    )
    return learned, running


def merge(learned: Params, running: Params) -> Params:
    """Inverse of `split`."""
    return jax.tree.map(
        lambda a, b: b if a is None else a, learned, running, is_leaf=lambda node: node is None
    )


def inputs_and_targets(
    features: Pair[Array], mapped: Collection[str]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Direction -> features that go into the head, and direction -> features to predict."""
    ends = {"forward": features, "backward": features[::-1]}
    return {k: ends[k][0] for k in mapped}, {k: ends[k][1] for k in mapped}


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
    return predictions, dataclasses.replace(head, encoders=encoders, decoders=decoders)


def residual(
    prediction: Float[Array, "*batch C"], target: Float[Array, "*batch C"], config: MappingConfig
) -> Float[Array, "*batch"]:
    """Squared distance of prediction and target at each position (eq. 8)."""
    if config.normalize_prediction:
        prediction = l2_normalize(prediction)
    return jnp.sum(jnp.square(prediction - target), -1)


def loss(
    heads: Heads, batch: Batch, config: MappingConfig, dtype: DTypeLike = jnp.float32
) -> tuple[Float[Array, ""], tuple[dict[str, Float[Array, ""]], Heads]]:
    """Computes eq. 12, summed over the levels, which share no parameter: three problems in one.

    Returns the sum; the loss of each level, and the heads with updated running statistics.
    """
    losses, updated = {}, {}
    for level, head in heads.items():
        inputs, targets = inputs_and_targets(batch.features[level], head.encoders)
        mask = batch.mask[level]
        predictions, updated[level] = apply(head, inputs, mask, dtype)
        distances = {k: residual(p, targets[k], config) for k, p in predictions.items()}
        means = [
            masked_sum(mask, d) / mask.sum() / targets[k].shape[-1] for k, d in distances.items()
        ]
        losses[level] = sum(means, jnp.float32(0))
    return sum(losses.values(), jnp.float32(0)), (losses, updated)
