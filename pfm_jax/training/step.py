"""Training the heads: the state of a run, its optimiser and the pure step."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from pfm_jax.config import TrainConfig
from pfm_jax.model import heads
from pfm_jax.model.heads import Heads
from pfm_jax.model.problem import Extent, Problem
from pfm_jax.types import Batch, Pair, level_number

Losses = dict[str, Array]
"""Level -> loss of a step, or of several steps."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that changes in training. A leading axis `[G]` of runs makes it a group.

    Attributes:
        step: int32, steps done.
        heads: level -> heads, with BatchNorm's running statistics; or what the problem's objective
            has in their place.
        opt_state: state of the `optimizer`.
        key: uint32 `[2]`, data of the key that is folded into every random choice; never changes.
        extent: the features that it learns from, and for how many steps; never changes.
    """

    step: Array
    heads: Heads
    opt_state: Any
    key: Array
    extent: Extent


def optimizer(train: TrainConfig) -> optax.GradientTransformation:
    """Matches torch's Adam before the learning rate; weight decay is L2 in the gradient."""
    decay = optax.add_decayed_weights(train.weight_decay)
    return optax.chain(decay, optax.scale_by_adam(b2=train.beta2))


def rate(step: Array, total_steps: Array, train: TrainConfig) -> Array:
    """Fraction of the peak learning rate at a step: a linear warm-up, then the schedule.

    The number of steps in all is an array, so that one program serves runs of any length.
    """
    rising = jnp.round(train.warmup * total_steps)
    left = jnp.maximum(total_steps - rising, 1)
    done = jnp.clip((step - rising) / left, 0, 1)
    falling = {
        "constant": jnp.ones_like(done),
        "cosine": 0.5 * (1 + jnp.cos(jnp.pi * done)),
        "linear": 1 - done,
    }[train.schedule]
    return jnp.where(step < rising, step / jnp.maximum(rising, 1), falling)


@functools.partial(jax.jit, static_argnames=("channels", "problem"))
def _init(
    seed: Array, extent: Extent, channels: tuple[tuple[str, Pair[int]], ...], problem: Problem
) -> TrainState:
    key = jax.random.key(seed)
    own = jax.random.fold_in(key, 0)
    if problem.objective is None:
        fresh = heads.init(own, dict(channels), problem.mapping)
    else:
        fresh = problem.objective.init(own)
    opt_state = optimizer(problem.train).init(heads.split(fresh)[0])
    drawn = jax.random.key_data(jax.random.fold_in(key, 1))
    return TrainState(jnp.int32(0), fresh, opt_state, drawn, extent)


def init_state(
    seed: int, channels: dict[str, Pair[int]], problem: Problem, extent: Extent
) -> TrainState:
    """A run before its first step; `seed` decides the heads' weights and every draw.

    `channels`: level -> channels of each network's features; see `features.feature_channels`.
    """
    # The low 32 bits, as `jax.random.key` takes them of a Python integer.
    return _init(np.uint32(seed & 0xFFFFFFFF), extent, tuple(channels.items()), problem)


def step(state: TrainState, batch: Batch, problem: Problem) -> tuple[TrainState, Losses]:
    """Updates all heads once; returns the new state and the loss of each level.

    Pure, and may be mapped over runs by `vmap`.
    """
    train = problem.train
    features = jax.tree.map(lambda rows: rows.astype(jnp.float32), batch.features)
    batch = Batch(features, batch.mask)
    learned, running = heads.split(state.heads)

    def loss(learned: Heads) -> tuple[Array, tuple[Losses, Heads]]:
        params = heads.merge(learned, running)
        if problem.objective is not None:
            drawn = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
            own = jax.random.fold_in(drawn, level_number("objective"))
            return problem.objective.loss(params, batch, own)
        return heads.loss(params, batch, problem.mapping, jnp.dtype(train.precision))

    grads, (losses, updated) = jax.grad(loss, has_aux=True)(learned)
    updates, opt_state = optimizer(train).update(grads, state.opt_state, learned)
    fraction = rate(state.step, state.extent.total_steps, train)
    scale = {level: -train.learning_rate[level] * fraction for level in learned}
    scaled = {k: jax.tree.map(lambda u, s=scale[k]: s * u, updates[k]) for k in learned}
    merged = heads.merge(optax.apply_updates(learned, scaled), heads.split(updated)[1])
    return TrainState(state.step + 1, merged, opt_state, state.key, state.extent), losses
