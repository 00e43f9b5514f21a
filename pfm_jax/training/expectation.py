"""How large a residual to expect at a position, fitted once the heads are trained.

Normal positions differ in how well they can be mapped: an edge less than a plain surface. The last
hidden layer of a head tells them apart, and a ridge regression on it, of the residual's logarithm,
tells how far from zero a normal position lies.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from pfm_jax.model import heads
from pfm_jax.model.folded import FoldedHead, FoldedHeads, fold, log_residual, predict
from pfm_jax.model.layers import Dense
from pfm_jax.model.problem import Problem
from pfm_jax.system import devices
from pfm_jax.training import sampling
from pfm_jax.training.cache import FeatureCache
from pfm_jax.training.step import TrainState
from pfm_jax.types import Batch, Features, InputError

DRAWS = 128
"""Steps whose positions are seen, of each level."""

RIDGE = 0.1
"""Ridge, as a fraction of the mean variance of the hidden layer's values."""

LEAST_TRACE = 1e-12
"""Floor for that variance, summed: hidden values may all be constant."""

Moments = dict[str, dict[str, Array]]
"""Level -> direction -> second moments `[K + 2, K + 2]` of rows of hidden values, one, and the
logarithm of the residual."""


def with_expected(state: TrainState, cache: FeatureCache, problem: Problem) -> TrainState:
    """Fits what is expected of a trained run's residuals; see `heads.Head.expected`.

    On the positions that the next `DRAWS` steps would have seen, had there been any. Raises
    InputError: it is not finite.
    """
    if cache.place == "device":
        place = jax.tree.leaves(cache.rows)[0].sharding
        here = state if state.step.sharding == place else jax.device_put(state, place)
        expected = fit_on_device(here, cache.rows, problem)
    else:
        folded, moments = devices.replicate(fold(devices.fetch(state.heads))), None
        for index in range(DRAWS):
            which = state.key, np.int32(state.step + index), state.extent
            batches = sampling.gather(cache.rows, *which, 1, problem)
            moments = _add(moments, folded, jax.tree.map(lambda x: x[0], batches), problem)
        expected = _fitted(moments)
    expected = devices.replicate(expected)
    for level, own in devices.fetch(expected).items():
        if not all(np.isfinite(values).all() for values in jax.tree.leaves(own)):
            wrong = f"the residuals to expect at {level} are not finite"
            raise InputError(f"{wrong}: lower train.learning_rate")
    fitted = {k: dataclasses.replace(h, expected=expected[k]) for k, h in state.heads.items()}
    return dataclasses.replace(state, heads=fitted)


@functools.partial(jax.jit, static_argnames="problem")
def fit_on_device(state: TrainState, rows: Features, problem: Problem) -> Any:
    """Level -> direction -> the regression, for features that are on the device."""
    folded, key = fold(state.heads), jax.random.wrap_key_data(state.key)
    capacity = sampling.cached_tiles(rows, problem)

    def seen(index: Array | int) -> Batch:
        drawn, mask = sampling.draw(key, state.step + index, state.extent, problem, capacity)
        return Batch(sampling.pick(rows, drawn), mask)

    def body(index: Array, moments: Moments) -> Moments:
        return _add(moments, folded, seen(index), problem)

    return _fitted(lax.fori_loop(1, DRAWS, body, _add(None, folded, seen(0), problem)))


@functools.partial(jax.jit, static_argnames="problem")
def _add(moments: Moments | None, folded: FoldedHeads, batch: Batch, problem: Problem) -> Moments:
    """Adds a step's moments."""
    found: Moments = {}
    for level, own in folded.items():
        rows = jax.tree.map(lambda f: f.astype(jnp.float32), batch.features[level])
        inputs, targets = heads.inputs_and_targets(rows, own)
        found[level] = {
            k: _second_moments(head, inputs[k], targets[k], batch.mask[level], problem)
            for k, head in own.items()
        }
    return found if moments is None else jax.tree.map(jnp.add, moments, found)


def _second_moments(
    head: FoldedHead, x: Array, target: Array, mask: Array, problem: Problem
) -> Array:
    prediction, hidden = predict(head, x, jnp.dtype(problem.train.precision))
    residual = heads.residual(prediction, target, problem.mapping)
    columns = jnp.stack([jnp.ones_like(residual), log_residual(residual)], -1)
    rows = jnp.concatenate([hidden, columns], -1) * mask[:, None]
    return jnp.dot(rows.T, rows, precision="highest")


@jax.jit
def _fitted(moments: Moments) -> dict[str, dict[str, Dense]]:
    return {k: {d: ridge_regression(m) for d, m in own.items()} for k, own in moments.items()}


def ridge_regression(moments: Array) -> Dense:
    """Regression of y on x, by the second moments `[K + 2, K + 2]` of rows (x, 1, y).

    The intercept is not shrunk.
    """
    mean = moments / moments[-2, -2]
    x, y = mean[:-2, -2], mean[-1, -2]
    covariance = mean[:-2, :-2] - jnp.outer(x, x)
    ridge = RIDGE * jnp.maximum(jnp.trace(covariance), LEAST_TRACE) / len(x)
    slopes = jnp.linalg.solve(covariance + ridge * jnp.eye(len(x)), mean[:-2, -1] - x * y)
    return Dense(slopes[:, None], (y - x @ slopes)[None])
