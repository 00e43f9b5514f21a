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
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from pfm_jax.backbones.networks import Networks
from pfm_jax.datasets.images import BATCH_SIZE, batches
from pfm_jax.model import tiles
from pfm_jax.model.features import extract, feature_channels
from pfm_jax.model.tiles import Tiles
from pfm_jax.system import devices
from pfm_jax.system.files import cache_dir
from pfm_jax.types import STRIDES, Example, Features, InputError, Pair

MEMORY_FRACTION = 0.5
"""Fraction of free memory that a cache may take."""

log = logging.getLogger(__name__)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FeatureCache:
    """The features of one training set, or of several of the same size.

    Attributes:
        rows: float16 `[D * N * h * w, C]` per level and network, image after image, row-major: JAX
            arrays if `place` is `"device"`, but NumPy arrays if `"host"` or `"disk"` (mapped).
    """

    rows: Features
    place: str = dataclasses.field(metadata={"static": True})


def at_levels(cache: FeatureCache, levels: tuple[str, ...]) -> FeatureCache:
    """Selects some levels of a cache."""
    return dataclasses.replace(cache, rows={k: cache.rows[k] for k in levels})


def choose_place(nbytes: int) -> str:
    """`"device"`, `"host"` or `"disk"`: the first with room for `nbytes`."""
    if nbytes <= MEMORY_FRACTION * devices.free_on_device():
        return "device"
    return "host" if nbytes <= MEMORY_FRACTION * devices.free_on_host() else "disk"


@functools.partial(jax.jit, donate_argnums=0)
def _store_on_device(rows: Features, new: Features, start: dict[str, Array]) -> Features:
    stored = {
        level: jax.tree.map(
            lambda old, f, row=row: lax.dynamic_update_slice(old, f.astype(old.dtype), (row, 0)),
            rows[level],
            new[level],
        )
        for level, row in start.items()
    }
    return devices.constrain_replicated(stored)


def _store_on_host(rows: Features, new: Features, start: dict[str, int]) -> Features:
    for level, pair in devices.fetch(new).items():
        for old, features in zip(rows[level], pair, strict=True):
            old[start[level] : start[level] + len(features)] = features
    return rows


def _on_disk(shape: tuple[int, int], dtype: np.dtype[Any]) -> np.ndarray:
    """A memory-mapped file that is gone when the array is."""
    folder = cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, math.prod(shape) * dtype.itemsize)
        return np.memmap(file, dtype, "r+", shape=shape)


def _rows(count: int, *parts: Array) -> Array:
    """Rows of `count` images, tile after tile of each, from the tiles' features `[B, h, w, C]`."""
    if len(parts) == 1:
        return parts[0][:count].reshape(-1, parts[0].shape[-1])
    tiles_first = jnp.stack([part[:count] for part in parts], 1)
    return tiles_first.reshape(-1, tiles_first.shape[-1])


@jax.jit
def _finite(features: Features) -> Features:
    """Whether all features of each image `[B]` are finite."""
    finite = jax.tree.map(lambda f: jnp.isfinite(f).all((1, 2, 3)), features)
    return devices.constrain_replicated(finite)


def _check_finite(finite: Sequence[Features], examples: Sequence[Example], num_tiles: int) -> None:
    """Checks every batch at the end, so that no batch waits for it. Raises InputError."""
    for index, batch in enumerate(finite):
        for level, pair in batch.items():
            for side, fine in pair._asdict().items():
                if not np.asarray(fine).all():
                    start = index // num_tiles * len(fine) + int(np.asarray(fine).argmin())
                    path = examples[min(start, len(examples) - 1)].path
                    raise InputError(
                        f"{path}: the features of the {side} network at {level} are not finite"
                    )


EMPTY: dict[str, Callable[..., Any]] = {"device": jnp.zeros, "host": np.zeros, "disk": _on_disk}
"""Place -> function that makes an array there."""


def cache_shapes(
    networks: Networks, num_images: int, cut: Tiles, levels: tuple[str, ...]
) -> dict[str, Pair[jax.ShapeDtypeStruct]]:
    """Shapes of the rows of a cache of `num_images` images."""
    shapes, num_tiles = {}, num_images * len(tiles.corners(cut))
    for level, channels in feature_channels(networks, levels).items():
        rows = num_tiles * (cut.size // STRIDES[level]) ** 2
        shapes[level] = Pair(*(jax.ShapeDtypeStruct((rows, c), np.float16) for c in channels))
    return shapes


def build_cache(
    networks: Networks,
    examples: Sequence[Example],
    cut: Tiles,
    levels: tuple[str, ...],
    place: str | None = None,
) -> FeatureCache:
    """Extracts the features of every tile of every image, once.

    `examples` are the training images of one data set after the other; `place` is chosen by size
    if None.
    Raises InputError: an image that can't be read, or whose features are not finite.
    """
    shapes = cache_shapes(networks, len(examples), cut, levels)
    nbytes = devices.tree_bytes(shapes)
    place = place or choose_place(nbytes)
    log.info("features of %d images: %.2f GiB on the %s", len(examples), nbytes / 2**30, place)
    rows = jax.tree.map(lambda s: EMPTY[place](s.shape, s.dtype), shapes)
    rows = devices.replicate(rows) if place == "device" else rows
    store = _store_on_device if place == "device" else _store_on_host
    per_image = {k: pair.source.shape[0] // len(examples) for k, pair in shapes.items()}
    finite: list[Features] = []
    done, batch_size = 0, devices.batch_size(BATCH_SIZE)
    for images, count in batches(examples, cut.image, batch_size, "features"):
        parts = [extract(networks, devices.shard_batch(x), levels) for x in tiles.cut(images, cut)]
        finite += map(_finite, parts)
        new = jax.tree.map(functools.partial(_rows, count), *parts)
        rows = store(rows, new, {level: done * n for level, n in per_image.items()})
        done += count
    _check_finite(finite, examples, len(tiles.corners(cut)))
    rows = jax.block_until_ready(rows)
    devices.release_memory()
    return FeatureCache(rows, place)
