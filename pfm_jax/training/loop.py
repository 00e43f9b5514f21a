"""The training loop: many steps as one program, of a run or of a group; see `groups`."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from tqdm import tqdm

from pfm_jax.model.problem import Problem
from pfm_jax.system import devices
from pfm_jax.training import sampling
from pfm_jax.training.cache import FeatureCache
from pfm_jax.training.expectation import with_expected
from pfm_jax.training.groups import group_size, grouped, replicated, unstack
from pfm_jax.training.step import Losses, TrainState, step
from pfm_jax.types import Batch, Features, InputError

GATHER_BYTES = 2**28
"""Bytes gathered at a time from a cache on host or disk."""

Stepped = tuple[TrainState, Losses, Any]
"""A state after some steps, their losses, and whether each parameter and moment is finite."""

Save = Callable[[int, TrainState, dict[str, np.ndarray]], None]
"""Number of a run, its state, and level -> losses `[steps]` since it was saved last."""


def steps_per_call(problem: Problem) -> int:
    """Steps between two looks at the losses, at most. An accelerator waits while the host looks."""
    most = 25 if jax.default_backend() == "cpu" else 100
    return min(most, problem.train.checkpoint_every)


def _steps(
    state: TrainState,
    batch_at: Callable[[Array, TrainState], Batch],
    count: Array,
    problem: Problem,
) -> Stepped:
    """Runs `count` steps, an array, of one run; losses are `[S]`, the rest zero."""

    def body(index: Array, carry: tuple[TrainState, Losses]) -> tuple[TrainState, Losses]:
        state, losses = carry
        state, found = step(state, batch_at(index, state), problem)
        return state, {k: values.at[index].set(found[k]) for k, values in losses.items()}

    losses = {level: jnp.zeros(steps_per_call(problem)) for level in problem.levels}
    state, losses = lax.fori_loop(0, count, body, (state, losses))
    held = {"heads": state.heads, "optimizer": state.opt_state}
    return state, losses, jax.tree.map(lambda leaf: jnp.isfinite(leaf).all(), held)


@functools.partial(jax.jit, static_argnames="problem", donate_argnames="group")
def steps_on_device(group: TrainState, rows: Features, count: Array, problem: Problem) -> Stepped:
    """Runs up to S = `steps_per_call` steps on features that are on the device, as one loop.

    `group` may be a single run. Losses are `[G, S]` or `[S]`, of which the first `count`, int32,
    were computed.
    """
    alone, capacity = group.step.ndim == 0, sampling.cached_tiles(rows, problem)

    def one_run(state: TrainState, shared: tuple[Features, Array]) -> Stepped:
        def batch_at(_: Array, state: TrainState) -> Batch:
            key = jax.random.wrap_key_data(state.key)
            drawn, mask = sampling.draw(key, state.step, state.extent, problem, capacity)
            batch = Batch(sampling.pick(shared[0], drawn), mask)
            return devices.constrain_batch(batch) if alone else batch

        return _steps(state, batch_at, shared[1], problem)

    return devices.map_runs(one_run, group, (rows, count), alone=alone)


@functools.partial(jax.jit, static_argnames="problem", donate_argnames="group")
def steps_on_batches(group: TrainState, batches: Batch, count: Array, problem: Problem) -> Stepped:
    """Runs a step for each of the first `count` of batches `[G, steps, P, ...]`, or those of a
    single run `[steps, P, ...]`; see `steps_on_device`.
    """
    alone = group.step.ndim == 0

    def one_run(run: tuple[TrainState, Batch], count: Array) -> Stepped:
        def batch_at(index: Array, _: TrainState) -> Batch:
            batch: Batch = jax.tree.map(lambda x: x[index], run[1])
            return devices.constrain_batch(batch) if alone else batch

        return _steps(run[0], batch_at, count, problem)

    return devices.map_runs(one_run, (group, batches), count, alone=alone)


def _advance(
    group: TrainState, cache: FeatureCache, problem: Problem, steps: int
) -> tuple[TrainState, dict[str, np.ndarray], Any]:
    """Runs steps of a group or a single run; losses are `[G, steps]`. See `Stepped`."""
    runs, parts = np.size(group.step), []
    at_once = steps_per_call(problem)
    if cache.place != "device":
        wanted = GATHER_BYTES // (runs * sampling.step_bytes(cache.rows, problem))
        at_once = max(1, min(at_once, wanted))
    for start in range(0, steps, at_once):
        count = min(at_once, steps - start)
        if cache.place == "device":
            group, losses, finite = steps_on_device(group, cache.rows, np.int32(count), problem)
        else:
            first = np.asarray(devices.fetch(group.step)).reshape(-1)[0]
            which = group.key, first, group.extent
            batches = sampling.gather(cache.rows, *which, at_once, problem)
            group, losses, finite = steps_on_batches(group, batches, np.int32(count), problem)
        parts.append({k: v.reshape(runs, -1)[:, :count] for k, v in devices.fetch(losses).items()})
    return group, {k: np.concatenate([part[k] for part in parts], 1) for k in parts[0]}, finite


def train(
    states: Sequence[TrainState],
    cache: FeatureCache,
    problem: Problem,
    save: Save = lambda *_: None,
    stopping: Callable[[], bool] = lambda: False,
    room: int = 0,
) -> tuple[list[TrainState], dict[str, np.ndarray]]:
    """Trains runs, all at the same step and of as many steps, together to the last one.

    `save` is called about every `checkpoint_every` steps, if `checkpoint_seconds` have passed since
    the last time, and at the end. Once `stopping` is true, on all processes, all runs are saved and
    returned as far as they are. See `group_size` for `room`.

    Returns the states, and level -> loss of every step done `[G, steps]`. The buffers of the given
    states are donated. Raises InputError: a loss or a parameter that is not finite; such a state is
    not saved.
    """
    total, done = int(states[0].extent.total_steps), int(states[0].step)
    length, every = steps_per_call(problem), problem.train.checkpoint_every
    count, size = len(states), group_size(len(states), room)
    groups, cache = grouped(states, size), replicated(cache, size)
    del states
    saved = time.monotonic()
    curves, stopped = [_Curve() for _ in groups], stopping()
    with tqdm(desc="training", total=total, initial=done, unit="step", disable=None) as bar:
        bar.set_postfix_str("compiling")
        while done < total and not stopped:
            steps = min(length, total - done)
            for n, curve in enumerate(curves):
                if not stopped:
                    groups[n], losses, curve.finite = _advance(groups[n], cache, problem, steps)
                    curve.add(losses, done)
                    stopped = stopping()
            done += steps
            bar.set_postfix({k: f"{v.mean():.2e}" for k, v in curves[0].since(-1).items()})
            bar.update(steps)
            if done < total and (stopped or (done % every < steps and _is_due(saved, problem))):
                _save([unstack(group)[:count] for group in groups], curves, save)
                saved = time.monotonic()
    runs = [unstack(group)[:count] for group in groups]
    del groups  # a state is three times its parameters
    if done == total and problem.objective is None:
        for curve in curves:
            _check_finite(curve.finite, done)
        runs = [[with_expected(state, cache, problem) for state in group] for group in runs]
    _save(runs, curves, save)
    joined = [curve.since(0) for curve in curves]
    all_losses = {k: np.concatenate([own[k] for own in joined])[:count] for k in joined[0]}
    return [state for group in runs for state in group], all_losses


class _Curve:
    """The losses of a group, part after part, how many parts are saved, and what is finite."""

    def __init__(self) -> None:
        self.parts: list[dict[str, np.ndarray]] = []
        self.saved = 0
        self.finite: Any = None

    def add(self, losses: dict[str, np.ndarray], done: int) -> None:
        """Appends losses after `done` steps. Raises InputError if one is not finite."""
        for level, values in losses.items():
            if not (finite := np.isfinite(values).all(0)).all():
                where = f"at {level} is not finite in step {done + int(finite.argmin()) + 1}"
                raise InputError(f"the loss {where}: lower train.learning_rate")
        self.parts.append(losses)

    def since(self, part: int) -> dict[str, np.ndarray]:
        """Level -> losses `[G, steps]` from a part on."""
        some = self.parts[part:]
        return {k: np.concatenate([p[k] for p in some], 1) for k in (some[0] if some else {})}


def _save(runs: list[list[TrainState]], curves: list[_Curve], save: Save) -> None:
    """Saves the groups that advanced since the last save."""
    first = 0
    for group, curve in zip(runs, curves, strict=True):
        if curve.saved < len(curve.parts):
            _check_finite(curve.finite, group[0].step)
            losses = curve.since(curve.saved)
            for index, state in enumerate(group):
                save(first + index, state, {k: v[index] for k, v in losses.items()})
            devices.release_memory()
            curve.saved = len(curve.parts)
        first += len(group)


def _is_due(saved: float, problem: Problem) -> bool:
    """Whether states may be saved again; all processes agree, since they save together."""
    return devices.any_process(time.monotonic() - saved >= problem.train.checkpoint_seconds)


def _check_finite(finite: Any, step: Array | int) -> None:
    for path, fine in jax.tree_util.tree_leaves_with_path(devices.fetch(finite)):
        if not fine.all():
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise InputError(f"{name} is not finite after step {step}: lower train.learning_rate")
