"""Devices of one process or of several: meshes, sharding, memory, precision.

A batch is sharded over the axis `data`, everything else replicated, and the result is that of one
device: XLA sums gradients and BatchNorm's statistics over the devices. Runs that train together are
sharded over the axis `runs`. Of several processes each reads its slice of the images, and the
primary one writes.
"""

from __future__ import annotations

import ctypes
import functools
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Tree = TypeVar("Tree")

DATA_AXIS = "data"
RUNS_AXIS = "runs"


def devices() -> list[jax.Device]:
    """Devices to use: all, or, of a single process on CPUs, one, since others share its cores."""
    found = jax.devices()
    return found[:1] if jax.default_backend() == "cpu" and jax.process_count() == 1 else found


def is_primary() -> bool:
    """Whether this process writes."""
    return jax.process_index() == 0


def process_slice() -> tuple[int, int]:
    """This process's index and the number of processes."""
    return jax.process_index(), jax.process_count()


def barrier(name: str) -> None:
    """Waits until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def batch_size(least: int) -> int:
    """Smallest multiple of the number of devices that is not below `least`."""
    count = len(devices())
    return -(-least // count) * count


def _sharding(*axes: str) -> NamedSharding:
    return NamedSharding(Mesh(np.array(devices()), (DATA_AXIS,)), PartitionSpec(*axes))


def replicate(tree: Tree) -> Tree:
    """Replicates a pytree; host-local leaves must agree on all processes."""
    if jax.process_count() > 1:
        return jax.tree.map(_replicate, tree)
    return jax.device_put(tree, _sharding()) if len(devices()) > 1 else jax.device_put(tree)


def _replicate(array: Array | np.ndarray) -> Array:
    if isinstance(array, Array):
        if not array.is_fully_addressable:
            return _copy(_sharding())(array)
        if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(_replicate(jax.random.key_data(array)))
    return jax.make_array_from_process_local_data(_sharding(), np.asarray(array))


@functools.cache
def _copy(sharding: NamedSharding) -> Callable[[Array], Array]:
    return jax.jit(lambda array: array, out_shardings=sharding)


def fetch(tree: Tree) -> Tree:
    """Copies a pytree to the host as NumPy arrays, whichever device holds what."""
    return jax.device_get(replicate(tree) if jax.process_count() > 1 else tree)


def shard_batch(local: np.ndarray) -> Array | np.ndarray:
    """Shards a batch `[B, ...]`, of which this process has its slice, over all devices."""
    if len(devices()) == 1:
        return local
    return jax.make_array_from_process_local_data(_sharding(DATA_AXIS), local)


def constrain_batch(tree: Tree) -> Tree:
    """Within `jit`, shards the arrays whose rows divide evenly."""
    count = len(devices())
    if count == 1:
        return tree

    def one(array: Array) -> Array:
        even = array.shape[0] % count == 0
        return lax.with_sharding_constraint(array, _sharding(DATA_AXIS)) if even else array

    return jax.tree.map(one, tree)


def constrain_replicated(tree: Tree) -> Tree:
    """Within `jit`, replicates every array."""
    if len(devices()) == 1:
        return tree
    return jax.tree.map(lambda array: lax.with_sharding_constraint(array, _sharding()), tree)


def runs_mesh(runs: int) -> Mesh:
    """Mesh of the most devices that share `runs` runs evenly."""
    found = devices()
    count = max(n for n in range(1, min(runs, len(found)) + 1) if runs % n == 0)
    return Mesh(np.array(found[:count]), RUNS_AXIS)


def map_runs(one: Callable[..., Any], group: Any, shared: Any) -> Any:
    """Maps `one(run, shared)` over the leading axis of a group, sharded over the runs' mesh.

    Each device takes its runs as one `vmap`, a single run without it.
    """

    def local(group: Any, shared: Any) -> Any:
        if jax.tree.leaves(group)[0].shape[0] > 1:
            return jax.vmap(one, (0, None))(group, shared)
        alone = one(jax.tree.map(lambda leaf: leaf[0], group), shared)
        return jax.tree.map(lambda leaf: leaf[None], alone)

    mesh, runs = runs_mesh(jax.tree.leaves(group)[0].shape[0]), PartitionSpec(RUNS_AXIS)
    if mesh.size == 1:
        return local(group, shared)
    in_specs = runs, PartitionSpec()
    spread = jax.shard_map(local, mesh=mesh, in_specs=in_specs, out_specs=runs, check_vma=False)
    return spread(group, shared)


def resolve_precision(precision: str) -> str:
    """Resolves `"auto"`: bfloat16 where the device has units for it, else float32.

    Accelerators have, and so have CPUs with AMX (five times float32's rate) or AVX-512's bfloat16
    dot products (1.8 times). Other CPUs are slower at it than at float32.
    """
    if precision != "auto":
        return precision
    info = Path("/proc/cpuinfo")
    units = info.read_text() if info.is_file() else ""
    fast = jax.default_backend() != "cpu" or "amx_bf16" in units or "avx512_bf16" in units
    return jnp.bfloat16.__name__ if fast else jnp.float32.__name__


def tree_bytes(tree: Any) -> int:
    """Bytes of a pytree of arrays, or of shapes of arrays."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def free_on_host() -> int:
    """Bytes of memory that the system could give now, its file caches included."""
    if (meminfo := Path("/proc/meminfo")).is_file():
        fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
        return 1024 * int(fields["MemAvailable"].split()[0])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def free_on_device() -> int:
    """Bytes that the first device could give now; on a CPU, the host's memory."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit", free_on_host()) - stats.get("bytes_in_use", 0)


def release_memory() -> None:
    """Returns freed memory to the system; glibc keeps it, and it adds up over phases."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
