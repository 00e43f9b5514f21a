"""Runs that train as one: stacked, padded and shared out over the devices.

A *group* is a `TrainState` whose leaves have a leading axis `[G]`: runs at the same step, which may
differ in seed and in data set. A run by itself has no such axis.
"""

from __future__ import annotations

import dataclasses
import operator
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec

from pfm_jax.system import devices
from pfm_jax.training.cache import FeatureCache
from pfm_jax.training.step import TrainState


def group_size(runs: int, room: int = 0) -> int:
    """Runs that train as one group, padding included; 0 if every run trains by itself.

    A group is padded to what devices share evenly and, if it fills more than half of it, to `room`
    runs, so that the parts of a launch share a program: fewer would pay more for the padding. On a
    CPU one batched product is slower than several, and a run by itself stays what it would be
    alone.
    """
    most = max(runs, room if 2 * runs > room else 0)
    return devices.even_runs(most) if most > 1 and jax.default_backend() != "cpu" else 0


@jax.jit
def stack(states: Sequence[TrainState]) -> TrainState:
    """Stacks runs at the same step into a group."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)


def grouped(states: Sequence[TrainState], size: int) -> list[TrainState]:
    """All runs as one group, the last one repeated up to its size, or every run by itself."""
    if not size:
        return [devices.replicate(state) for state in states]
    group = stack([*states, *[states[-1]] * (size - len(states))])
    return [_placed(group, size, devices.RUNS_AXIS)]


def replicated(cache: FeatureCache, size: int) -> FeatureCache:
    """Replicates a cache on the device over the devices that share a group of a size."""
    if cache.place != "device":
        return cache
    return dataclasses.replace(cache, rows=_placed(cache.rows, size))


def group_shapes(state: TrainState, size: int) -> TrainState:
    """Shapes and sharding of a group of a size, or of a run by itself; see `grouped`.

    `state`: shapes of one run.
    """
    group: TrainState = jax.eval_shape(stack, [state] * size) if size else state
    return devices.placed_shapes(group, _sharding(size, devices.RUNS_AXIS))


def shared_shapes(tree: Any, size: int) -> Any:
    """Shapes and sharding of arrays that all runs of a group share; see `replicated`."""
    return devices.placed_shapes(tree, _sharding(size))


def unstack(group: TrainState) -> list[TrainState]:
    """Splits a group, or a run by itself, into its runs, each replicated."""
    group = devices.replicate(group)
    return [group] if group.step.ndim == 0 else _unstacked(group)


@jax.jit
def _unstacked(group: TrainState) -> list[TrainState]:
    return [jax.tree.map(operator.itemgetter(n), group) for n in range(group.step.shape[0])]


def _placed(tree: Any, size: int, *axes: str) -> Any:
    """Puts arrays on the devices that share a group; on a single one as they are, so that the
    program is the one that was compiled ahead."""
    sharding = _sharding(size, *axes)
    return jax.device_put(tree, sharding) if sharding else devices.replicate(tree)


def _sharding(size: int, *axes: str) -> NamedSharding | None:
    """Sharding over the devices that share a group; None for one device, or a run by itself."""
    mesh = devices.runs_mesh(size) if size else None
    return NamedSharding(mesh, PartitionSpec(*axes)) if mesh and mesh.size > 1 else None
