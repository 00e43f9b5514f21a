"""Devices of one process or of several: meshes, sharding, memory, precision.

A batch is sharded over the axis `data`, everything else replicated; XLA sums gradients and
BatchNorm's statistics over the devices, so the result is that of one device. Runs that train
together are sharded over the axis `runs`. Each process reads its slice of the images; the primary
one writes.
"""

from __future__ import annotations

import ctypes
import functools
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import psutil
from jax import Array, lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Tree = TypeVar("Tree")

DATA_AXIS, RUNS_AXIS = "data", "runs"


def devices() -> list[jax.Device]:
    """All devices; a single process on CPUs uses one, since the others share its cores."""
    found = jax.devices()
    return found[:1] if jax.default_backend() == "cpu" and process_count() == 1 else found


def process_count() -> int:
    """Number of processes of the launch. Claims no device, unlike jax's own before they met."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def is_primary() -> bool:
    """Whether this process writes. Claims no device."""
    return process_count() == 1 or jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits for every process."""
    if process_count() > 1:
        multihost_utils.sync_global_devices(name)


def any_process(flag: bool) -> bool:
    """Whether the flag is set on any process; all of them wait for the answer."""
    if process_count() == 1:
        return flag
    return bool(np.any(multihost_utils.process_allgather(np.array(flag))))


def batch_sizes() -> tuple[int, ...]:
    """Numbers of images that programs are compiled for, over all devices, ascending.

    A CPU's cores are busy with 8 images; an accelerator wants more at a time.
    """
    count = len(devices())
    if jax.default_backend() == "cpu":
        return tuple(dict.fromkeys(-(-size // count) * count for size in (1, 8)))
    return tuple(size * count for size in (1, 8, 32))


def batch_size() -> int:
    """Images of a full batch, over all devices."""
    return batch_sizes()[-1]


def _sharding(*axes: str) -> NamedSharding:
    return NamedSharding(Mesh(np.array(devices()), (DATA_AXIS,)), PartitionSpec(*axes))


def replicate(tree: Tree) -> Tree:
    """Replicates a pytree; host-local leaves must agree on all processes."""
    if process_count() > 1:
        return jax.tree.map(_replicate, tree)
    return jax.device_put(tree, _sharding()) if len(devices()) > 1 else jax.device_put(tree)


def _replicate(array: Array | np.ndarray) -> Array:
    if isinstance(array, Array):
        if not array.is_fully_addressable:
            return _copy(_sharding())(array)
        if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(_replicate(jax.random.key_data(array)))
    return jax.make_array_from_process_local_data(_sharding(), np.asarray(array))


def placed_shapes(tree: Tree, sharding: NamedSharding | None = None) -> Tree:
    """Adds to shapes in a pytree how `replicate` places their arrays, or another sharding."""

    def one(leaf: Any) -> Any:
        is_shape = isinstance(leaf, jax.ShapeDtypeStruct)
        return leaf.update(sharding=sharding or _sharding()) if is_shape else leaf

    return jax.tree.map(one, tree) if len(devices()) > 1 else tree


def batch_shape(size: int) -> jax.ShapeDtypeStruct:
    """Shape of a full batch of square images, uint8, as `shard_batch` shards it."""
    shape = jax.ShapeDtypeStruct((batch_size(), size, size, 3), np.uint8)
    return placed_shapes(shape, _sharding(DATA_AXIS))


@functools.cache
def _copy(sharding: NamedSharding) -> Callable[[Array], Array]:
    return jax.jit(lambda array: array, out_shardings=sharding)


def fetch(tree: Tree) -> Tree:
    """Copies a pytree to the host as NumPy arrays, from the devices of all processes."""
    return jax.device_get(replicate(tree) if process_count() > 1 else tree)


def shard_batch(local: np.ndarray) -> Array | np.ndarray:
    """Shards a batch `[B, ...]`, given as each process's slice, over all devices."""
    if len(devices()) == 1:
        return local
    return jax.make_array_from_process_local_data(_sharding(DATA_AXIS), local)


def constrain_batch(tree: Tree) -> Tree:
    """Within `jit`, shards the arrays whose rows divide evenly."""

    def one(array: Array) -> Array:
        even = array.shape[0] % len(devices()) == 0
        return lax.with_sharding_constraint(array, _sharding(DATA_AXIS)) if even else array

    return jax.tree.map(one, tree) if len(devices()) > 1 else tree


def constrain_replicated(tree: Tree) -> Tree:
    """Within `jit`, replicates every array."""
    return lax.with_sharding_constraint(tree, _sharding()) if len(devices()) > 1 else tree


def even_runs(runs: int) -> int:
    """The number of runs, rounded up so that every device in use has as many as the busiest."""
    each = -(-runs // len(devices()))
    return -(-runs // each) * each


def runs_mesh(runs: int) -> Mesh:
    """Mesh of the devices that share a number of runs from `even_runs`."""
    each = -(-runs // len(devices()))
    return Mesh(np.array(devices()[: runs // each]), RUNS_AXIS)


def map_runs(one: Callable[..., Any], group: Any, shared: Any, *, alone: bool) -> Any:
    """Maps `one(run, shared)` over the leading axis of a group, sharded over the runs' mesh.

    Each device maps its runs by `vmap`; a run `alone`, without that axis, goes without.
    """
    if alone:
        return one(group, shared)

    def local(group: Any, shared: Any) -> Any:
        return jax.vmap(one, (0, None))(group, shared)

    mesh, runs = runs_mesh(jax.tree.leaves(group)[0].shape[0]), PartitionSpec(RUNS_AXIS)
    if mesh.size == 1:
        return local(group, shared)
    in_specs = runs, PartitionSpec()
    spread = jax.shard_map(local, mesh=mesh, in_specs=in_specs, out_specs=runs, check_vma=False)
    return spread(group, shared)


def resolve_precision(precision: str) -> str:
    """Resolves `"auto"`: bfloat16 if the device has units for it, else float32.

    Accelerators have them, as do CPUs with AMX (five times float32's rate) or AVX-512's bfloat16
    dot products (1.8 times); other CPUs are slower at it than at float32.
    """
    if precision != "auto":
        return precision
    info = Path("/proc/cpuinfo")
    units = info.read_text() if info.is_file() else ""
    fast = jax.default_backend() != "cpu" or "amx_bf16" in units or "avx512_bf16" in units
    return jnp.bfloat16.__name__ if fast else jnp.float32.__name__


def tree_bytes(tree: Any) -> int:
    """Bytes of a pytree of arrays or `ShapeDtypeStruct`s."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def free_on_host() -> int:
    """Bytes of available host memory, file caches included."""
    return int(psutil.virtual_memory().available)


def free_on_device() -> int:
    """Bytes available on the first device; on a CPU, on the host."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit", free_on_host()) - stats.get("bytes_in_use", 0)


def release_memory() -> None:
    """Returns freed memory to the system; glibc would hoard it over phases."""
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):
        trim(0)
