"""The training loop: many steps as one `lax.scan`, many runs as one group.

A *group* is a `TrainState` whose leaves have a leading axis `[G]`: runs that train together and may
differ in seed and in data set. It is sharded over the devices.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import NamedSharding, PartitionSpec
from tqdm import tqdm

from pfm_jax.model.problem import Problem
from pfm_jax.system import devices, interrupts
from pfm_jax.training import sampling
from pfm_jax.training.cache import FeatureCache
from pfm_jax.training.step import Losses, TrainState, step
from pfm_jax.types import Batch, Features, InputError

SCAN_STEPS = 25
"""Most steps of one scan, between two looks at the losses."""

GATHER_BYTES = 2**28
"""Bytes gathered at a time from a cache on host or disk."""

Save = Callable[[int, list[TrainState], dict[str, np.ndarray]], None]
"""Index of the first of some runs, their states, and the losses of each step since the last call,
level -> `[runs, steps]`."""


def stack(states: Sequence[TrainState]) -> TrainState:
    """Stacks runs at the same step into a group."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def unstack(group: TrainState) -> list[TrainState]:
    """Splits a group into its runs, each replicated."""
    group = devices.replicate(group)
    return [jax.tree.map(operator.itemgetter(n), group) for n in range(group.step.shape[0])]


def _groups(states: Sequence[TrainState]) -> list[TrainState]:
    """All runs as one group; on a CPU a group for each run, since one batched product is slower
    there than several products, and every run stays what it would be alone.
    """
    if jax.default_backend() == "cpu" or len(states) == 1:
        return [devices.replicate(stack([state])) for state in states]
    group, mesh = stack(states), devices.runs_mesh(len(states))
    return [jax.device_put(group, NamedSharding(mesh, PartitionSpec(devices.RUNS_AXIS)))]


@functools.partial(jax.jit, static_argnames=("problem", "steps"), donate_argnames="group")
def steps_on_device(
    group: TrainState, rows: Features, problem: Problem, steps: int
) -> tuple[TrainState, Losses]:
    """Runs steps on features that are on the device, as one scan; losses are `[G, steps]`."""
    alone = group.step.shape[0] == 1

    def one_run(state: TrainState, rows: Features) -> tuple[TrainState, Losses]:
        def body(state: TrainState, _: None) -> tuple[TrainState, Losses]:
            drawn, mask = sampling.draw(state.key, state.step, state.dataset, problem)
            batch = Batch(sampling.pick(rows, drawn), mask)
            batch = devices.constrain_batch(batch) if alone else batch
            return step(state, batch, problem)

        return lax.scan(body, state, length=steps)

    return devices.map_runs(one_run, group, rows)


@functools.partial(jax.jit, static_argnames="problem", donate_argnames="group")
def steps_on_batches(
    group: TrainState, batches: Batch, problem: Problem
) -> tuple[TrainState, Losses]:
    """Runs a step for each of the batches `[G, steps, P, ...]`; losses are `[G, steps]`."""
    alone = group.step.shape[0] == 1

    def body(state: TrainState, batch: Batch) -> tuple[TrainState, Losses]:
        batch = devices.constrain_batch(batch) if alone else batch
        return step(state, batch, problem)

    def one_run(run: tuple[TrainState, Batch], _: None) -> tuple[TrainState, Losses]:
        return lax.scan(body, *run)

    return devices.map_runs(one_run, (group, batches), None)


def _advance(
    group: TrainState, cache: FeatureCache, problem: Problem, steps: int
) -> tuple[TrainState, Losses]:
    if cache.place == "device":
        return steps_on_device(group, cache.rows, problem, steps)
    runs, parts = group.step.shape[0], []
    at_once = max(1, GATHER_BYTES // (runs * sampling.step_bytes(cache.rows, problem)))
    for start in range(0, steps, at_once):
        some, which = min(at_once, steps - start), (group.key, group.step[0], group.dataset)
        batches = sampling.gather(cache.rows, *which, some, problem)
        group, losses = steps_on_batches(group, batches, problem)
        parts.append(losses)
    return group, jax.tree.map(lambda *x: jnp.concatenate(x, 1), *parts)


def train(
    states: Sequence[TrainState],
    cache: FeatureCache,
    problem: Problem,
    save: Save | None = None,
) -> tuple[list[TrainState], dict[str, np.ndarray]]:
    """Trains runs, all at the same step, together to the last one.

    `save`, if given, is called about every `checkpoint_every` steps and at the end; SIGTERM then
    ends the process with exit code 0, after all runs are saved as far as they are.

    Returns the states at the last step, and level -> loss of every step done `[G, steps]`. Raises
    InputError: a loss or a parameter that is not finite; such a state is not saved.
    """
    total, every, done = problem.total_steps, problem.train.checkpoint_every, int(states[0].step)
    # Scans of one length, as far as it goes: each length is a program of its own.
    length = -(-total // -(-total // min(SCAN_STEPS, every)))
    groups, cache = _groups(states), _replicated(cache, len(states))
    del states
    curves = [_Curve() for _ in groups]
    with (
        interrupts.deferred() if save else nullcontext(lambda: False) as stopping,
        tqdm(desc="training", total=total, initial=done, unit="step", disable=None) as bar,
    ):
        while done < total and not stopping():
            steps = min(length, total - done)
            for index, curve in enumerate(curves):
                if not stopping():
                    groups[index], losses = _advance(groups[index], cache, problem, steps)
                    curve.add(jax.device_get(losses), done)
            done += steps
            bar.set_postfix({k: f"{v.mean():.2e}" for k, v in curves[0].since(-1).items()})
            bar.update(steps)
            if stopping() or (done < total and done % every < steps):
                _save([unstack(group) for group in groups], curves, save)
    runs = [unstack(group) for group in groups]
    del groups  # a state is three times its parameters
    _save(runs, curves, save)
    joined = [curve.since(0) for curve in curves]
    all_losses = {level: np.concatenate([own[level] for own in joined]) for level in joined[0]}
    return [state for group in runs for state in group], all_losses


class _Curve:
    """The losses of a group, part after part, and how many parts are saved."""

    def __init__(self) -> None:
        self.parts: list[dict[str, np.ndarray]] = []
        self.saved = 0

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


def _save(runs: list[list[TrainState]], curves: list[_Curve], save: Save | None) -> None:
    """Saves the groups that advanced since the last save."""
    first = 0
    for group, curve in zip(runs, curves, strict=True):
        if curve.saved < len(curve.parts):
            for state in group:
                _check_finite(state)
            if save:
                save(first, group, curve.since(curve.saved))
            curve.saved = len(curve.parts)
        first += len(group)


def _check_finite(state: TrainState) -> None:
    held = {"heads": state.heads, "optimizer": state.opt_state}
    for path, leaf in jax.tree_util.tree_leaves_with_path(held):
        if not jnp.isfinite(leaf).all():
            where = f"is not finite after step {state.step}"
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise InputError(f"{name} {where}: lower train.learning_rate")


def _replicated(cache: FeatureCache, runs: int) -> FeatureCache:
    """Replicates a cache on the device over the devices that share the runs."""
    if cache.place != "device":
        return cache
    if runs == 1 or jax.default_backend() == "cpu":
        return devices.replicate(cache)
    return jax.device_put(cache, NamedSharding(devices.runs_mesh(runs), PartitionSpec()))
