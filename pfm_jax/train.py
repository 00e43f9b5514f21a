"""Training the heads: the pure step, many steps as one `lax.scan`, and `fit`."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from tqdm import tqdm

from pfm_jax import mapping, sampling
from pfm_jax.cache import FeatureCache
from pfm_jax.config import Config, MappingConfig, TrainConfig
from pfm_jax.types import Batch, FeaturePair, InputError, Params

SCAN_STEPS = 25
"""The most steps between two looks at the losses; they are one scan."""

GATHER_BYTES = 2**28
"""What is gathered from a cache on host or disk at a time."""

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
    """

    step: Array
    params: Params
    batch_stats: Params
    opt_state: Any
    key: Array


def num_steps(config: TrainConfig, num_images: int) -> int:
    """Steps in all: `steps`, or `epochs` times the batches that hold all images."""
    if config.sampling == "positions":
        return config.steps
    return config.epochs * -(-num_images // config.batch_size)


def optimizer(
    config: TrainConfig, total: int, levels: Iterable[str]
) -> optax.GradientTransformation:
    """torch's Adam, a rate for each level; weight decay is L2 in the gradient, not AdamW's."""

    def one(rate: float) -> optax.GradientTransformation:
        cosine = optax.cosine_decay_schedule(rate, total)
        schedule = cosine if config.schedule == "cosine" else optax.constant_schedule(rate)
        return optax.chain(optax.add_decayed_weights(config.weight_decay), optax.adam(schedule))

    transforms = {level: one(config.learning_rate[level]) for level in levels}
    return optax.partition(transforms, {level: level for level in transforms})


@functools.partial(jax.jit, static_argnames=("recipe", "total"))
def _init(key: Array, features: FeaturePair, recipe: Recipe, total: int) -> TrainState:
    heads = mapping.make_heads(recipe.mapping, features)
    params, batch_stats = mapping.init(heads, jax.random.fold_in(key, 0))
    opt_state = optimizer(recipe.train, total, params).init(params)
    return TrainState(jnp.int32(0), params, batch_stats, opt_state, jax.random.fold_in(key, 1))


def init_state(config: Config, channels: FeaturePair, num_images: int) -> TrainState:
    """Fresh heads from `config.seed`, for features of as many channels as `channels` has.

    Args:
        config: the recipe.
        channels: anything of shape `[..., C]` for each level, such as `feature_shapes` gives.
        num_images: that the heads are to be trained on (it decides the number of steps).
    """
    rows = jax.tree.map(lambda array: jnp.zeros((1, array.shape[-1])), channels)
    total = num_steps(config.train, num_images)
    return _init(jax.random.key(config.seed), rows, Recipe(config.mapping, config.train), total)


def train_step(
    state: TrainState, batch: Batch, config: MappingConfig, update: optax.GradientTransformation
) -> tuple[TrainState, Losses]:
    """One update of all heads. Pure; returns the new state and the loss of each level."""
    features = jax.tree.map(lambda rows: rows.astype(jnp.float32), batch.features)
    heads = mapping.make_heads(config, features)
    grads, (losses, batch_stats) = jax.grad(mapping.loss, argnums=1, has_aux=True)(
        heads, state.params, state.batch_stats, Batch(features, batch.mask), config
    )
    updates, opt_state = update.update(grads, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return TrainState(state.step + 1, params, batch_stats, opt_state, state.key), losses


@functools.partial(jax.jit, static_argnames=("recipe", "steps"), donate_argnames="state")
def steps_on_device(
    state: TrainState, cache: FeatureCache, recipe: Recipe, steps: int
) -> tuple[TrainState, Losses]:
    """`steps` steps on a cache that is on the device, as one scan; losses are `[steps]`."""
    update = optimizer(recipe.train, num_steps(recipe.train, cache.num_images), state.params)
    sizes = sampling.sizes(cache)

    def body(state: TrainState, _: None) -> tuple[TrainState, Losses]:
        rows, mask = sampling.draw(state.key, state.step, sizes, cache.num_images, recipe.train)
        batch = Batch(sampling.pick(cache.rows, rows), mask)
        return train_step(state, batch, recipe.mapping, update)

    return lax.scan(body, state, length=steps)


@functools.partial(jax.jit, static_argnames=("recipe", "total"), donate_argnames="state")
def steps_on_batches(
    state: TrainState, batches: Batch, recipe: Recipe, total: int
) -> tuple[TrainState, Losses]:
    """A step for each of the batches `[steps, P, ...]`, as one scan; losses are `[steps]`."""
    update = optimizer(recipe.train, total, state.params)
    return lax.scan(lambda s, b: train_step(s, b, recipe.mapping, update), state, batches)


def _advance(
    state: TrainState, cache: FeatureCache, recipe: Recipe, steps: int
) -> tuple[TrainState, Losses]:
    if cache.place == "device":
        return steps_on_device(state, cache, recipe, steps)
    one = sampling.gather(cache, state.key, state.step, 1, recipe.train)
    at_once = max(1, GATHER_BYTES // sum(array.nbytes for array in jax.tree.leaves(one)))
    total, parts = num_steps(recipe.train, cache.num_images), []
    for start in range(0, steps, at_once):
        some = min(at_once, steps - start)
        batches = sampling.gather(cache, state.key, state.step, some, recipe.train)
        state, losses = steps_on_batches(state, batches, recipe, total)
        parts.append(losses)
    return state, jax.tree.map(lambda *x: jnp.concatenate(x), *parts)


def fit(
    state: TrainState,
    cache: FeatureCache,
    config: Config,
    save: Callable[[TrainState], None] = lambda _: None,
) -> tuple[TrainState, dict[str, np.ndarray]]:
    """Trains to the last step, from wherever `state` is.

    Args:
        state: is donated; don't use it afterwards.
        cache: the features of the training images.
        config: the recipe.
        save: is called with the state about every `checkpoint_every` steps and at the end.

    Returns:
        The state at the last step and level -> loss of every step done `[steps]`.

    Raises:
        InputError: a loss that is not finite; the state that has it is not saved.
    """
    total, done = num_steps(config.train, cache.num_images), int(state.step)
    recipe, every = Recipe(config.mapping, config.train), config.train.checkpoint_every
    # Scans of one length, as far as it goes: each length is a program of its own.
    length = -(-total // -(-total // min(SCAN_STEPS, every)))
    history: list[Losses] = []
    with tqdm(desc="training", total=total, initial=done, unit="step", disable=None) as bar:
        while done < total:
            steps = min(length, total - done)
            state, losses = _advance(state, cache, recipe, steps)
            history.append(jax.device_get(losses))
            if bad := [k for k, values in history[-1].items() if not np.isfinite(values).all()]:
                wrong = ", ".join(bad)
                raise InputError(f"the loss at {wrong} is not finite: lower train.learning_rate")
            done += steps
            if done == total or done % every < steps:
                save(state)
            bar.set_postfix({k: f"{v.mean():.2e}" for k, v in history[-1].items()})
            bar.update(steps)
    return state, jax.tree.map(lambda *x: np.concatenate(x), *history) if history else {}
