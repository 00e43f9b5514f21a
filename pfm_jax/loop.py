"""Many steps as one `lax.scan`, many runs as one group, on one device or shared out over all.

A *group* is a `TrainState` whose leaves have a leading axis `[G]`: runs that train together and may
differ in seed and in data set.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from tqdm import tqdm

from pfm_jax import interrupts, sampling, sharding
from pfm_jax.cache import FeatureCache
from pfm_jax.config import Config
from pfm_jax.train import Losses, Recipe, TrainState, num_steps, optimizer, recipe_of, train_step
from pfm_jax.types import Batch, FeaturePair, InputError

SCAN_STEPS = 25
"""The most steps between two looks at the losses; they are one scan."""

GATHER_BYTES = 2**28
"""What is gathered from a cache on host or disk at a time."""


Save = Callable[[int, list[TrainState], dict[str, np.ndarray]], None]
"""The number of the first of some runs, their states, and the losses of each step since the last
time, level -> `[runs, steps]`."""


def stack(states: Sequence[TrainState]) -> TrainState:
    """Runs at the same step -> a group."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def unstack(group: TrainState) -> list[TrainState]:
    """A group -> its runs, each on every device."""
    group = sharding.everywhere(group)
    runs = range(group.step.shape[0])
    return [jax.tree.map(operator.itemgetter(index), group) for index in runs]


def _mesh(runs: int) -> Mesh:
    """The devices that share `runs` runs evenly: as many as there can be."""
    devices = sharding.devices()
    count = max(n for n in range(1, min(runs, len(devices)) + 1) if runs % n == 0)
    return Mesh(np.array(devices[:count]), "runs")


def _each(one: Callable[..., Any], group: Any, shared: Any) -> Any:
    """`one(run, shared)` for every run of a group; each device takes its share as one batch."""

    def share(group: Any, shared: Any) -> Any:
        if jax.tree.leaves(group)[0].shape[0] > 1:
            return jax.vmap(one, (0, None))(group, shared)
        alone = one(jax.tree.map(operator.itemgetter(0), group), shared)
        return jax.tree.map(lambda leaf: leaf[None], alone)

    mesh, runs = _mesh(jax.tree.leaves(group)[0].shape[0]), PartitionSpec("runs")
    if mesh.size == 1:
        return share(group, shared)
    in_specs = runs, PartitionSpec()
    spread = jax.shard_map(share, mesh=mesh, in_specs=in_specs, out_specs=runs, check_vma=False)
    return spread(group, shared)


def _groups(states: Sequence[TrainState]) -> list[TrainState]:
    """All runs as one group; each its own on a CPU, where arithmetic is the limit: a batch of
    products is slower there than the products, and so every run is what it would be alone.
    """
    if jax.default_backend() == "cpu" or len(states) == 1:
        return [sharding.everywhere(stack([state])) for state in states]
    group, mesh = stack(states), _mesh(len(states))
    return [jax.device_put(group, NamedSharding(mesh, PartitionSpec("runs")))]


@functools.partial(jax.jit, static_argnames=("recipe", "steps"), donate_argnames="group")
def steps_on_device(
    group: TrainState, cache: FeatureCache, recipe: Recipe, steps: int
) -> tuple[TrainState, Losses]:
    """`steps` steps on a cache that is on the device, as one scan; losses are `[G, steps]`."""
    update = optimizer(recipe.train, num_steps(recipe.train, cache.num_images), group.params)
    sizes, alone = sampling.sizes(cache), group.step.shape[0] == 1

    def one_run(state: TrainState, rows: FeaturePair) -> tuple[TrainState, Losses]:
        def body(state: TrainState, _: None) -> tuple[TrainState, Losses]:
            drawn, mask = sampling.draw(
                state.key, state.step, state.dataset, sizes, cache.num_images, recipe.train
            )
            batch = Batch(sampling.pick(rows, drawn), mask)
            batch = sharding.along_data(batch) if alone else batch
            return train_step(state, batch, recipe, update)

        return lax.scan(body, state, length=steps)

    return _each(one_run, group, cache.rows)


@functools.partial(jax.jit, static_argnames=("recipe", "total"), donate_argnames="group")
def steps_on_batches(
    group: TrainState, batches: Batch, recipe: Recipe, total: int
) -> tuple[TrainState, Losses]:
    """A step for each of the batches `[G, steps, P, ...]`, as one scan; losses are `[G, steps]`."""
    update, alone = optimizer(recipe.train, total, group.params), group.step.shape[0] == 1

    def body(state: TrainState, batch: Batch) -> tuple[TrainState, Losses]:
        batch = sharding.along_data(batch) if alone else batch
        return train_step(state, batch, recipe, update)

    def one_run(run: tuple[TrainState, Batch], _: None) -> tuple[TrainState, Losses]:
        return lax.scan(body, *run)

    return _each(one_run, (group, batches), None)


def _advance(
    group: TrainState, cache: FeatureCache, recipe: Recipe, steps: int
) -> tuple[TrainState, Losses]:
    if cache.place == "device":
        return steps_on_device(group, cache, recipe, steps)
    runs = group.step.shape[0]
    at_once = max(1, GATHER_BYTES // (runs * sampling.step_bytes(cache, recipe.train)))
    total, parts = num_steps(recipe.train, cache.num_images), []
    for start in range(0, steps, at_once):
        some = min(at_once, steps - start)
        batches = sampling.gather(
            cache, group.key, group.step[0], group.dataset, some, recipe.train
        )
        group, losses = steps_on_batches(group, batches, recipe, total)
        parts.append(losses)
    return group, jax.tree.map(lambda *x: jnp.concatenate(x, 1), *parts)


def fit(
    states: Sequence[TrainState],
    cache: FeatureCache,
    config: Config,
    save: Save = lambda *_: None,
) -> tuple[list[TrainState], dict[str, np.ndarray]]:
    """Trains runs together to the last step, from wherever they are.

    SIGTERM ends the process with exit code 0, all runs being saved as far as they are.

    Args:
        states: of runs at the same step.
        cache: the features of the training images.
        config: the recipe, but for the seed, which is each run's own.
        save: is called about every `checkpoint_every` steps and at the end; see `Save`.

    Returns:
        The states at the last step and level -> loss of every step done `[G, steps]`.

    Raises:
        InputError: a loss or a parameter that is not finite; such a state is not saved.
    """
    total, done = num_steps(config.train, cache.num_images), int(states[0].step)
    recipe, every = recipe_of(config), config.train.checkpoint_every
    # Scans of one length, as far as it goes: each length is a program of its own.
    length = -(-total // -(-total // min(SCAN_STEPS, every)))
    groups, cache = _groups(states), _everywhere(cache, len(states))
    del states
    curves = [_Curve() for _ in groups]
    with (
        interrupts.deferred() as stopping,
        tqdm(desc="training", total=total, initial=done, unit="step", disable=None) as bar,
    ):
        while done < total and not stopping():
            steps = min(length, total - done)
            for index, curve in enumerate(curves):
                if not stopping():
                    groups[index], losses = _advance(groups[index], cache, recipe, steps)
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
        """Raises InputError if one is not finite; `done` steps came before."""
        for level, values in losses.items():
            if not (finite := np.isfinite(values).all(0)).all():
                step = done + int(finite.argmin()) + 1
                raise InputError(
                    f"the loss at {level} is not finite in step {step}: lower train.learning_rate"
                )
        self.parts.append(losses)

    def since(self, part: int) -> dict[str, np.ndarray]:
        """Level -> losses `[G, steps]` from a part on."""
        some = self.parts[part:]
        return {k: np.concatenate([p[k] for p in some], 1) for k in (some[0] if some else {})}


def _save(runs: list[list[TrainState]], curves: list[_Curve], save: Save) -> None:
    """Saves what has gone on since the last time."""
    first = 0
    for group, curve in zip(runs, curves, strict=True):
        if curve.saved < len(curve.parts):
            for state in group:
                _check_finite(state)
            save(first, group, curve.since(curve.saved))
            curve.saved = len(curve.parts)
        first += len(group)


def _check_finite(state: TrainState) -> None:
    held = {"params": state.params, "batch_stats": state.batch_stats, "optimizer": state.opt_state}
    for path, leaf in jax.tree_util.tree_leaves_with_path(held):
        if not jnp.isfinite(leaf).all():
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            raise InputError(
                f"{name} is not finite after step {state.step}: lower train.learning_rate"
            )


def _everywhere(cache: FeatureCache, runs: int) -> FeatureCache:
    """A cache on the device, on every device that shares the runs."""
    if cache.place != "device":
        return cache
    if runs == 1 or jax.default_backend() == "cpu":
        return sharding.everywhere(cache)
    return jax.device_put(cache, NamedSharding(_mesh(runs), PartitionSpec()))
