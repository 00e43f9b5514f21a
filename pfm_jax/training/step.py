"""Training the heads: the state of a run, its optimiser and the pure step."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from pfm_jax.model import heads
from pfm_jax.model.heads import Heads
from pfm_jax.model.problem import Problem
from pfm_jax.training import sampling
from pfm_jax.types import Batch, Pair

Losses = dict[str, Array]
"""Level -> loss of a step, or of several steps."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that changes in training. A leading axis `[G]` of runs makes it a group.

    Attributes:
        step: int32, steps done.
        heads: level -> heads, with BatchNorm's running statistics.
        opt_state: of `optimizer`.
        key: folded into every random choice; never changes.
        dataset: int32, which of the cache's data sets it learns from; never changes.
    """

    step: Array
    heads: Heads
    opt_state: Any
    key: Array
    dataset: Array


def optimizer(problem: Problem) -> optax.GradientTransformation:
    """Matches torch's Adam, with a rate for each level; weight decay is L2 in the gradient."""
    config, total = problem.train, problem.total_steps
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

    transforms = {level: one(config.learning_rate[level]) for level in problem.levels}
    return optax.partition(transforms, {level: level for level in transforms})


@functools.partial(jax.jit, static_argnames=("channels", "problem"))
def _init(key: Array, channels: tuple[tuple[str, Pair[int]], ...], problem: Problem) -> TrainState:
    fresh = heads.init(jax.random.fold_in(key, 0), dict(channels), problem.mapping)
    opt_state = optimizer(problem).init(heads.split(fresh)[0])
    return TrainState(jnp.int32(0), fresh, opt_state, jax.random.fold_in(key, 1), jnp.int32(0))


def init_state(seed: int, channels: dict[str, Pair[int]], problem: Problem) -> TrainState:
    """A run before its first step; `seed` decides the heads' weights and every draw.

    `channels`: level -> channels of each network's features; see `features.feature_channels`.
    """
    return _init(jax.random.key(seed), tuple(channels.items()), problem)


def step(state: TrainState, batch: Batch, problem: Problem) -> tuple[TrainState, Losses]:
    """Updates all heads once; returns the new state and the loss of each level.

    Pure, and may be mapped over runs by `vmap`. The batch holds hard-mining candidates last.
    """
    features = jax.tree.map(lambda rows: rows.astype(jnp.float32), batch.features)
    batch = Batch(features, batch.mask)
    if problem.train.sampling == "positions" and problem.train.candidates:
        batch = sampling.keep_hardest(state.heads, batch, problem)
    learned, running = heads.split(state.heads)

    def loss(learned: Heads) -> tuple[Array, tuple[Losses, Heads]]:
        dtype = jnp.dtype(problem.train.precision)
        return heads.loss(heads.merge(learned, running), batch, problem.mapping, dtype)

    grads, (losses, updated) = jax.grad(loss, has_aux=True)(learned)
    updates, opt_state = optimizer(problem).update(grads, state.opt_state, learned)
    learned = optax.apply_updates(learned, updates)
    merged = heads.merge(learned, heads.split(updated)[1])
    return TrainState(state.step + 1, merged, opt_state, state.key, state.dataset), losses
