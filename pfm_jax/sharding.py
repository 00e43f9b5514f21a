"""Many devices, of one process or of several: batches are shared out, all else is everywhere.

One mesh axis, `data`. What is computed of a batch is what one device would compute of all of it:
XLA adds up the sums of gradients and of BatchNorm's statistics over the devices. Of several
processes each reads its share of the images, and the first one writes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TypeVar

import jax
import numpy as np
from jax import Array, lax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

Tree = TypeVar("Tree")

AXIS = "data"


def devices() -> list[jax.Device]:
    """All there are; of a single process on CPUs one, since others would share its cores."""
    found = jax.devices()
    return found[:1] if jax.default_backend() == "cpu" and jax.process_count() == 1 else found


def is_first() -> bool:
    """Whether this is the process that writes."""
    return jax.process_index() == 0


def share() -> tuple[int, int]:
    """This process's number and how many there are."""
    return jax.process_index(), jax.process_count()


def wait(place: str) -> None:
    """Until every process is at this place."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(place)


def batch_size(least: int) -> int:
    """The smallest multiple of the number of devices that is not below `least`."""
    count = len(devices())
    return -(-least // count) * count


def _where(*axes: str) -> NamedSharding:
    return NamedSharding(Mesh(np.array(devices()), (AXIS,)), PartitionSpec(*axes))


def everywhere(tree: Tree) -> Tree:
    """Every device has all of it; what is no array of all processes yet is the same in each."""
    if jax.process_count() > 1:
        return jax.tree.map(_everywhere, tree)
    return jax.device_put(tree, _where()) if len(devices()) > 1 else jax.device_put(tree)


def _everywhere(array: Array | np.ndarray) -> Array:
    if isinstance(array, Array):
        if not array.is_fully_addressable:
            return _copy(_where())(array)
        if jax.dtypes.issubdtype(array.dtype, jax.dtypes.prng_key):
            return jax.random.wrap_key_data(_everywhere(jax.random.key_data(array)))
    return jax.make_array_from_process_local_data(_where(), np.asarray(array))


@functools.cache
def _copy(where: NamedSharding) -> Callable[[Array], Array]:
    return jax.jit(lambda array: array, out_shardings=where)


def on_host(tree: Tree) -> Tree:
    """As NumPy arrays, whatever device holds what."""
    return jax.device_get(everywhere(tree) if jax.process_count() > 1 else tree)


def spread(own: np.ndarray) -> Array | np.ndarray:
    """A batch `[B, ...]`, of which this process has its share, shared out over all devices."""
    if len(devices()) == 1:
        return own
    return jax.make_array_from_process_local_data(_where(AXIS), own)


def along_data(tree: Tree) -> Tree:
    """Within `jit`: arrays whose rows divide evenly are shared out."""
    count = len(devices())
    if count == 1:
        return tree

    def one(array: Array) -> Array:
        even = array.shape[0] % count == 0
        return lax.with_sharding_constraint(array, _where(AXIS)) if even else array

    return jax.tree.map(one, tree)


def replicated(tree: Tree) -> Tree:
    """Within `jit`: every device is to have all of it."""
    if len(devices()) == 1:
        return tree
    return jax.tree.map(lambda array: lax.with_sharding_constraint(array, _where()), tree)
