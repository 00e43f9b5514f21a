"""Features as a network gives them, of images and of whole data sets."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from pfm_jax.datasets.images import batches
from pfm_jax.system import devices
from pfm_jax.types import Example, FeaturePyramid, InputError

MEMORY_FRACTION = 0.8
"""Fraction of free memory on the host that the features of a data set may take."""

Memory = dict[str, Array]
"""What a method keeps of normal images: arrays by name."""

log = logging.getLogger(__name__)


class Found(NamedTuple):
    """Anomaly maps `[B, h, w]` at the resolution of features, and image scores `[B]`, None where
    `scoring.fuse` gives them."""

    maps: Array
    image_scores: Array | None = None


def collected(
    of_batch: Callable[[Any], dict[str, Array]],
    examples: Sequence[Example],
    size: int,
    room: int = 0,
    *,
    on_device: bool = False,
) -> dict[str, np.ndarray]:
    """Features of every image of a data set, by name, `[N, ...]` on the host, with `room` for more.

    `of_batch`, compiled, takes uint8 images `[B, size, size, 3]`. Raises InputError: an image that
    can't be read, or features that don't fit in memory, which is known before any is made;
    `on_device`: all are then put there.
    """
    one = jax.eval_shape(of_batch, jax.ShapeDtypeStruct((1, size, size, 3), np.uint8))
    count = len(examples)
    rows = max(count, room)
    shapes = {k: jax.ShapeDtypeStruct((rows, *s.shape[1:]), s.dtype) for k, s in one.items()}
    nbytes, free = devices.tree_bytes(shapes), MEMORY_FRACTION * devices.free_on_host()
    if on_device:  # a CPU's own memory is both, and holds two copies
        free = min(free / 2, MEMORY_FRACTION * devices.free_on_device())
    log.info("features of %d images: %.2f GiB on the host", count, nbytes / 2**30)
    if nbytes > free:
        raise InputError(
            f"the features of {count} images take {nbytes / 2**30:.1f} GiB of memory, and "
            f"{free / 2**30:.1f} GiB can be had: set --config.data.shots to use fewer"
        )
    found, done = {k: np.empty(s.shape, s.dtype) for k, s in shapes.items()}, 0
    for images, real in batches(examples, size, devices.batch_size(), "features"):
        for name, own in devices.fetch(of_batch(devices.shard_batch(images))).items():
            found[name][done : done + real] = own[:real]
        done += real
    return found


def of_length(array: Array, length: float) -> Array:
    """As many rows of an array as `length`, rounded, over and over."""
    return jnp.take(array, jnp.arange(round(length)) % len(array), 0)


def repeated(pyramid: FeaturePyramid, stages: Sequence[str]) -> Float[Array, "B h w C"]:
    """Concatenates stages at the grid of the first, the positions of the others repeated."""
    grid = pyramid[stages[0]].shape[1:3]

    def at_grid(features: Array) -> Array:
        times = [length // own for length, own in zip(grid, features.shape[1:3], strict=True)]
        return features.repeat(times[0], 1).repeat(times[1], 2)

    return jnp.concatenate([at_grid(pyramid[stage]) for stage in stages], -1)
