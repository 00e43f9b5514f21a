"""Training the heads: the state of a run, its optimiser and the pure step."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import Array

from pfm_jax import mapping, sampling
from pfm_jax.config import Config, MappingConfig, TrainConfig
from pfm_jax.layers import operand_dtype
from pfm_jax.types import Batch, FeaturePair, Params

Losses = dict[str, Array]


class Recipe(NamedTuple):
    """What a training program depends on: a second seed or category compiles nothing new."""

    mapping: MappingConfig
    train: TrainConfig


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """All that changes while training.

    Attributes:
        step: int32, steps done.
        params, batch_stats: level -> variables of its heads.
        opt_state: of `optimizer`.
        key: what every random choice is folded from; never changes.
        dataset: int32, which of the cache's data sets it learns from; never changes.
    """

    step: Array
    params: Params
    batch_stats: Params
    opt_state: Any
    key: Array
    dataset: Array


def recipe_of(config: Config) -> Recipe:
    """A copy: programs are remembered by their recipe, and the caller may change the config."""
    return Recipe(*copy.deepcopy((config.mapping, config.train)))


def num_steps(config: TrainConfig, num_images: int) -> int:
    """Steps in all: `steps`, or `epochs` times the batches that hold all images."""
    if config.sampling == "positions":
        return config.steps
    return config.epochs * -(-num_images // config.batch_size)


def optimizer(
    config: TrainConfig, total: int, levels: Iterable[str]
) -> optax.GradientTransformation:
    """torch's Adam, a rate for each level; weight decay is L2 in the gradient, not AdamW's."""

    rising = round(config.warmup * total)

    def one(peak: float) -> optax.GradientTransformation:
        falling = {
            "constant": optax.constant_schedule(peak),
            "cosine": optax.cosine_decay_schedule(peak, total - rising),
            "linear": optax.linear_schedule(peak, 0, total - rising),
        }[config.schedule]
        rate = optax.join_schedules([optax.linear_schedule(0, peak, rising), falling], [rising])
        adam = optax.adam(rate if rising else falling, b2=config.beta2)
        return optax.chain(optax.add_decayed_weights(config.weight_decay), adam)

    transforms = {level: one(config.learning_rate[level]) for level in levels}
    return optax.partition(transforms, {level: level for level in transforms})


@functools.partial(jax.jit, static_argnames=("recipe", "total"))
def _init(key: Array, features: FeaturePair, recipe: Recipe, total: int) -> TrainState:
    heads = mapping.make_heads(recipe.mapping, features)
    params, batch_stats = mapping.init(heads, jax.random.fold_in(key, 0))
    opt_state = optimizer(recipe.train, total, params).init(params)
    step, dataset, key = jnp.int32(0), jnp.int32(0), jax.random.fold_in(key, 1)
    return TrainState(step, params, batch_stats, opt_state, key, dataset)


def init_state(config: Config, channels: FeaturePair, num_images: int) -> TrainState:
    """Fresh heads from `config.seed`, for features of as many channels as `channels` has.

    Args:
        config: the recipe.
        channels: anything of shape `[..., C]` for each level, such as `feature_shapes` gives.
        num_images: that the heads are to be trained on (it decides the number of steps).
    """
    rows = jax.tree.map(lambda array: jnp.zeros((1, array.shape[-1])), channels)
    total = num_steps(config.train, num_images)
    return _init(jax.random.key(config.seed), rows, recipe_of(config), total)


def train_step(
    state: TrainState, batch: Batch, recipe: Recipe, update: optax.GradientTransformation
) -> tuple[TrainState, Losses]:
    """One update of all heads. Pure; returns the new state and the loss of each level."""
    features = jax.tree.map(lambda rows: rows.astype(jnp.float32), batch.features)
    heads = mapping.make_heads(recipe.mapping, features, operand_dtype(recipe.train.precision))
    batch = Batch(features, batch.mask)
    if recipe.train.sampling == "positions" and recipe.train.candidates:
        batch = sampling.keep_hardest(
            heads, state.params, state.batch_stats, batch, recipe.mapping, recipe.train
        )
    grads, (losses, batch_stats) = jax.grad(mapping.loss, argnums=1, has_aux=True)(
        heads, state.params, state.batch_stats, batch, recipe.mapping
    )
    updates, opt_state = update.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    new = TrainState(state.step + 1, params, batch_stats, opt_state, state.key, state.dataset)
    return new, losses
