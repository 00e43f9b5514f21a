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

from pfm_jax import sampling
from pfm_jax.cache import FeatureCache
from pfm_jax.config import Config
from pfm_jax.train import Losses, Recipe, TrainState, num_steps, optimizer, recipe_of, train_step
from pfm_jax.types import Batch, FeaturePair, InputError

SCAN_STEPS = 25
"""The most steps between two looks at the losses; they are one scan."""

GATHER_BYTES = 2**28
"""What is gathered from a cache on host or disk at a time."""


def stack(states: Sequence[TrainState]) -> TrainState:
    """Runs at the same step -> a group."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def unstack(group: TrainState) -> list[TrainState]:
    """A group -> its runs, each on the first device."""
    group = jax.device_put(group, jax.devices()[0])
    runs = range(group.step.shape[0])
    return [jax.tree.map(operator.itemgetter(index), group) for index in runs]


def _mesh(runs: int) -> Mesh:
    """The devices that share `runs` runs evenly: as many as there can be."""
    devices = jax.devices()
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
    if jax.default_backend() == "cpu":
        return [stack([state]) for state in states]
    group, mesh = stack(states), _mesh(len(states))
    return [jax.device_put(group, NamedSharding(mesh, PartitionSpec("runs")))]


@functools.partial(jax.jit, static_argnames=("recipe", "steps"), donate_argnames="group")
def steps_on_device(
    group: TrainState, cache: FeatureCache, recipe: Recipe, steps: int
) -> tuple[TrainState, Losses]:
    """`steps` steps on a cache that is on the device, as one scan; losses are `[G, steps]`."""
    update = optimizer(recipe.train, num_steps(recipe.train, cache.num_images), group.params)
    sizes = sampling.sizes(cache)

    def one_run(state: TrainState, rows: FeaturePair) -> tuple[TrainState, Losses]:
        def body(state: TrainState, _: None) -> tuple[TrainState, Losses]:
            drawn, mask = sampling.draw(
                state.key, state.step, state.dataset, sizes, cache.num_images, recipe.train
            )
            return train_step(state, Batch(sampling.pick(rows, drawn), mask), recipe, update)

        return lax.scan(body, state, length=steps)

    return _each(one_run, group, cache.rows)


@functools.partial(jax.jit, static_argnames=("recipe", "total"), donate_argnames="group")
def steps_on_batches(
    group: TrainState, batches: Batch, recipe: Recipe, total: int
) -> tuple[TrainState, Losses]:
    """A step for each of the batches `[G, steps, P, ...]`, as one scan; losses are `[G, steps]`."""
    update = optimizer(recipe.train, total, group.params)

    def one_run(run: tuple[TrainState, Batch], _: None) -> tuple[TrainState, Losses]:
        return lax.scan(lambda s, b: train_step(s, b, recipe, update), *run)

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
    save: Callable[[list[TrainState], dict[str, np.ndarray]], None] = lambda *_: None,
) -> tuple[list[TrainState], dict[str, np.ndarray]]:
    """Trains runs together to the last step, from wherever they are.

    Args:
        states: of runs at the same step.
        cache: the features of the training images.
        config: the recipe, but for the seed, which is each run's own.
        save: is called about every `checkpoint_every` steps and at the end, with the states and the
            losses of the steps since `[G, steps]`.

    Returns:
        The states at the last step and level -> loss of every step done `[G, steps]`.

    Raises:
        InputError: a loss that is not finite; the states that have it are not saved.
    """
    total, done = num_steps(config.train, cache.num_images), int(states[0].step)
    recipe, every = recipe_of(config), config.train.checkpoint_every
    # Scans of one length, as far as it goes: each length is a program of its own.
    length = -(-total // -(-total // min(SCAN_STEPS, every)))
    history: list[dict[str, np.ndarray]] = []
    saved = 0
    groups, cache = _groups(states), _everywhere(cache, len(states))
    del states
    with tqdm(desc="training", total=total, initial=done, unit="step", disable=None) as bar:
        while done < total:
            steps = min(length, total - done)
            parts = []
            for index, group in enumerate(groups):
                groups[index], losses = _advance(group, cache, recipe, steps)
                parts.append(jax.device_get(losses))
            history.append(jax.tree.map(lambda *x: np.concatenate(x), *parts))
            _check_finite(history[-1])
            done += steps
            bar.set_postfix({k: f"{v.mean():.2e}" for k, v in history[-1].items()})
            bar.update(steps)
            if done < total and done % every < steps:
                save(_runs(groups), _joined(history[saved:]))
                saved = len(history)
    states = _runs(groups)
    del groups  # a state is three times its parameters
    if history:
        save(states, _joined(history[saved:]))
    return states, _joined(history)


def _runs(groups: Sequence[TrainState]) -> list[TrainState]:
    return [state for group in groups for state in unstack(group)]


def _joined(history: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    levels = history[0] if history else {}
    return {level: np.concatenate([part[level] for part in history], 1) for level in levels}


def _check_finite(losses: dict[str, np.ndarray]) -> None:
    if bad := [level for level, values in losses.items() if not np.isfinite(values).all()]:
        wrong = ", ".join(bad)
        raise InputError(f"the loss at {wrong} is not finite: lower train.learning_rate")


def _everywhere(cache: FeatureCache, runs: int) -> FeatureCache:
    """A cache on the device, on every device that shares the runs."""
    if cache.place != "device" or jax.default_backend() == "cpu":
        return cache
    return jax.device_put(cache, NamedSharding(_mesh(runs), PartitionSpec()))
