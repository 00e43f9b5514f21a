"""The features of a training set, extracted once and kept where there is room.

The backbones are frozen and nothing is augmented, so an image's features never change. They are
kept as float16: a unit vector loses 5e-4 of itself at most.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
import math
import os
import tempfile
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from pfm_jax.backbones.networks import Networks
from pfm_jax.datasets.images import batches
from pfm_jax.model import features, patches, tiles
from pfm_jax.model.features import feature_shapes, pyramids
from pfm_jax.model.patches import MemorySpec
from pfm_jax.model.tiles import Tiles
from pfm_jax.system import devices
from pfm_jax.system.files import cache_dir
from pfm_jax.types import Example, Features, InputError, Pair

MEMORY_FRACTION = 0.5
"""Fraction of free memory that a cache may take."""

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class FeatureCache:
    """The features of one training set, or of several.

    Attributes:
        rows: float16 `[N * h * w, C]` per level and network, image after image, row-major, with
            room for N images of which the first are there: JAX arrays if `place` is `"device"`, but
            NumPy arrays if `"host"` or `"disk"` (mapped). Of a baseline, an image a row;
            see `runs.learning`.
        candidates: float32 `[images, T, h, w, C]`, of which a memory is chosen, once; in NumPy, as
            it is done row by row.
        memory: the spec of that memory; None if there are no candidates.
    """

    rows: Features
    place: str
    candidates: np.ndarray | None = None
    memory: MemorySpec | None = None


def select(cache: FeatureCache, levels: tuple[str, ...], memory: MemorySpec | None) -> FeatureCache:
    """Selects some levels of a cache, and its candidates if they are for this memory."""
    rows = {k: cache.rows[k] for k in levels}
    if cache.memory != memory:
        return FeatureCache(rows, cache.place)
    return FeatureCache(rows, cache.place, cache.candidates, memory)


def choose_place(nbytes: int) -> str:
    """`"device"`, `"host"` or `"disk"`: the first with room for `nbytes`."""
    if nbytes <= MEMORY_FRACTION * devices.free_on_device():
        return "device"
    return "host" if nbytes <= MEMORY_FRACTION * devices.free_on_host() else "disk"


def capacity(num_images: int) -> int:
    """Images that a cache has room for: the next power of two, or three quarters of it, in whole
    batches. A program is compiled for each capacity, not for each number of images.
    """
    power, batch = 1 << max(num_images - 1, 1).bit_length(), devices.batch_size()
    wanted = power * 3 // 4 if num_images <= power * 3 // 4 else power
    return -(-wanted // batch) * batch


def _rows_of(
    networks: Networks,
    images: Array,
    levels: tuple[str, ...],
    cut: Tiles,
    memory: MemorySpec | None,
) -> tuple[Features, Array | None, Features]:
    """Extracts a batch's features.

    Returns rows, float16, image after image and tile after tile of each; candidates for a memory
    `[B, T, h, w, C]`; and, for each level and network, whether an image's are finite `[B]`.
    """

    def of_tile(part: Array, _: None) -> tuple[Features, Array | None]:
        pair = pyramids(networks, part)
        own = patches.memory_features(pair.target, memory.levels) if memory else None
        return features.at_levels(pair, levels, networks.neighbourhood), own

    found, seen = tiles.each(of_tile, images, cut)
    if memory and tiles.corners(memory.tiles) != tiles.corners(cut):
        _, seen = tiles.each(of_tile, images, memory.tiles)
    finite = jax.tree.map(lambda f: jnp.isfinite(f).all((0, 2, 3, 4)), found)
    rows = jax.tree.map(
        lambda f: f.swapaxes(0, 1).reshape(-1, f.shape[-1]).astype(jnp.float16), found
    )
    by_image = None if seen is None else seen.swapaxes(0, 1)
    return devices.constrain_replicated((rows, by_image, finite))


_rows_on_host = jax.jit(_rows_of, static_argnames=("levels", "cut", "memory"))


@functools.partial(jax.jit, static_argnames=("levels", "cut", "memory"), donate_argnames="rows")
def _store_on_device(
    rows: Features,
    first: Array,
    networks: Networks,
    images: Array,
    levels: tuple[str, ...],
    cut: Tiles,
    memory: MemorySpec | None,
) -> tuple[Features, Array | None, Features]:
    """Stores a batch from image number `first` on; see `_rows_of`."""
    new, seen, finite = _rows_of(networks, images, levels, cut, memory)

    def stored(old: Array, own: Array) -> Array:
        start = first * (own.shape[0] // images.shape[0])
        return lax.dynamic_update_slice(old, own, (start, jnp.int32(0)))

    return devices.constrain_replicated(jax.tree.map(stored, rows, new)), seen, finite


def _store_on_host(rows: Features, first: int, count: int, new: Features, batch_size: int) -> None:
    def store(old: np.ndarray, own: np.ndarray) -> None:
        per_image = len(own) // batch_size
        old[first * per_image : (first + count) * per_image] = own[: count * per_image]

    jax.tree.map(store, rows, devices.fetch(new))


def _on_disk(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """A memory-mapped file that is gone when the array is."""
    folder = cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, math.prod(shape) * dtype.itemsize)
        return np.memmap(file, dtype, "r+", shape=shape)


def _check_finite(finite: Sequence[Features], examples: Sequence[Example]) -> None:
    """Checks every batch at the end, so that no batch waits for it. Raises InputError."""
    for index, batch in enumerate(map(devices.fetch, finite)):
        for level, pair in batch.items():
            for side, fine in pair._asdict().items():
                if not fine.all():
                    image = min(index * len(fine) + int(fine.argmin()), len(examples) - 1)
                    raise InputError(
                        f"{examples[image].path}: the features of the {side} network at {level} "
                        "are not finite"
                    )


@functools.partial(jax.jit, static_argnames="shapes")
def _zeros(shapes: tuple[tuple[str, Pair[jax.ShapeDtypeStruct]], ...]) -> Features:
    zeros = {k: Pair(*(jnp.zeros(s.shape, s.dtype) for s in pair)) for k, pair in shapes}
    return devices.constrain_replicated(zeros)


def _empty(shapes: dict[str, Pair[jax.ShapeDtypeStruct]], place: str) -> Features:
    if place == "device":
        return _zeros(tuple(shapes.items()))
    make = np.zeros if place == "host" else _on_disk
    return jax.tree.map(lambda s: make(s.shape, s.dtype), shapes)


def cache_shapes(
    networks: Networks, num_images: int, cut: Tiles, levels: tuple[str, ...]
) -> dict[str, Pair[jax.ShapeDtypeStruct]]:
    """Shapes of the rows of a cache of `num_images` images."""
    num_tiles = num_images * len(tiles.corners(cut))

    def rows(one: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        _, height, width, channels = one.shape
        return jax.ShapeDtypeStruct((num_tiles * height * width, channels), np.float16)

    shapes = feature_shapes(networks, levels, cut.size)
    return {level: Pair(*map(rows, pair)) for level, pair in shapes.items()}


def room_shapes(
    networks: Networks, num_images: int, cut: Tiles, levels: tuple[str, ...], room: int = 0
) -> dict[str, Pair[jax.ShapeDtypeStruct]]:
    """Shapes of the rows of `build_cache` for `num_images` images."""
    return cache_shapes(networks, max(room, capacity(num_images)), cut, levels)


def build_cache(
    networks: Networks,
    examples: Sequence[Example],
    cut: Tiles,
    levels: tuple[str, ...],
    place: str | None = None,
    room: int = 0,
    memory: MemorySpec | None = None,
) -> FeatureCache:
    """Extracts the features of every tile of every image, once.

    `examples` are the training images of one data set after the other. `place` is chosen by size
    if None; there is room for at least `room` images. Keeps candidates for a `memory`.
    Raises InputError: an image that can't be read, or whose features are not finite.
    """
    shapes = room_shapes(networks, len(examples), cut, levels, room)
    nbytes = devices.tree_bytes(shapes)
    place = place or choose_place(nbytes)
    if levels:
        log.info("features of %d images: %.2f GiB on the %s", len(examples), nbytes / 2**30, place)
    rows, taken = _empty(shapes, place), nbytes if place == "host" else 0
    kept = _room_for_candidates(networks, len(examples), memory, taken)
    finite: list[Features] = []
    done, batch_size = 0, devices.batch_size()
    for images, count in batches(examples, cut.image, batch_size, "features"):
        some = networks, devices.shard_batch(images), levels, cut, memory
        if place == "device":
            rows, seen, fine = _store_on_device(rows, np.int32(done), *some)
        else:
            new, seen, fine = _rows_on_host(*some)
            _store_on_host(rows, done, count, new, batch_size)
        if kept is not None:
            kept[done : done + count] = devices.fetch(seen)[:count]
        finite.append(fine)
        done += count
    _check_finite(finite, examples)
    rows = jax.block_until_ready(rows)
    devices.release_memory()
    return FeatureCache(rows, place, kept, memory)


def _room_for_candidates(
    networks: Networks, num_images: int, memory: MemorySpec | None, taken: int
) -> np.ndarray | None:
    """Room for candidates of some images, on the host beside `taken` bytes of it, or on disk."""
    if memory is None:
        return None
    count, height, width, _, channels = patches.memory_shape(networks, memory).shape
    shape = num_images, count, height, width, channels
    fits = taken + 4 * math.prod(shape) <= MEMORY_FRACTION * devices.free_on_host()
    log.info("candidates for a memory: %.2f GiB", 4 * math.prod(shape) / 2**30)
    return (np.zeros if fits else _on_disk)(shape, np.dtype(np.float32))
