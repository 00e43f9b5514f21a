"""The features of a training set, extracted once and kept where there is room.

The backbones are frozen and nothing is augmented, so what training needs of an image never
changes. It is kept as float16: a unit vector loses 5e-4 of itself at most.
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

from pfm_jax import images as image_files
from pfm_jax import memory, sharding, tiles
from pfm_jax.features import Networks, extract, feature_shapes
from pfm_jax.files import cache_dir
from pfm_jax.tiles import Tiles
from pfm_jax.types import Example, FeaturePair, InputError

SHARE = 0.5
"""The part of the memory that is free which a cache may take."""

log = logging.getLogger(__name__)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FeatureCache:
    """The features of one training set, or of several of as many images each.

    Attributes:
        rows: float16 `[D * N * h * w, C]` per level, image after image, row-major. JAX arrays if
            `place` is `"device"`, NumPy arrays if it is `"host"` or `"disk"` (memory-mapped).
        num_images: N, of each data set; a tile is an image here.
        place: where the rows are.
        num_datasets: D.
    """

    rows: FeaturePair
    num_images: int = dataclasses.field(metadata={"static": True})
    place: str = dataclasses.field(metadata={"static": True})
    num_datasets: int = dataclasses.field(default=1, metadata={"static": True})


def at_levels(cache: FeatureCache, levels: tuple[str, ...]) -> FeatureCache:
    """The same at some levels only."""
    source, target = ({k: r[k] for k in levels} for r in (cache.rows.source, cache.rows.target))
    return dataclasses.replace(cache, rows=FeaturePair(source, target))


def choose_place(nbytes: int) -> str:
    """`"device"`, `"host"` or `"disk"`: the first with room for `nbytes`."""
    if nbytes <= SHARE * memory.free_on_device():
        return "device"
    return "host" if nbytes <= SHARE * memory.free_on_host() else "disk"


@functools.partial(jax.jit, donate_argnums=0)
def _store(rows: FeaturePair, new: FeaturePair, start: dict[str, Array]) -> FeaturePair:
    def one(old: Array, features: Array, row: Array) -> Array:
        return lax.dynamic_update_slice(old, features.astype(old.dtype), (row, 0))

    source = {
        level: one(rows.source[level], new.source[level], row) for level, row in start.items()
    }
    target = {
        level: one(rows.target[level], new.target[level], row) for level, row in start.items()
    }
    return sharding.replicated(FeaturePair(source, target))


def _store_on_host(rows: FeaturePair, new: FeaturePair, start: dict[str, int]) -> FeaturePair:
    new = sharding.on_host(new)
    for old, features in ((rows.source, new.source), (rows.target, new.target)):
        for level, row in start.items():
            old[level][row : row + len(features[level])] = features[level]
    return rows


def _on_disk(shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """A memory-mapped file that is gone when the array is."""
    folder = cache_dir()
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=folder) as file:
        os.posix_fallocate(file.fileno(), 0, math.prod(shape) * dtype.itemsize)
        return np.memmap(file, dtype, "r+", shape=shape)


@jax.jit
def _finite(features: FeaturePair) -> FeaturePair:
    """Of each image `[B]`, whether all of its features are numbers."""
    finite = jax.tree.map(lambda f: jnp.isfinite(f).all((1, 2, 3)), features)
    return sharding.replicated(finite)


def _check_finite(finite: Sequence[FeaturePair], examples: Sequence[Example], cuts: int) -> None:
    """Looks at what is known of every tile of every batch, at the end: no batch waits for it."""
    for index, batch in enumerate(finite):
        for side, pyramid in (("source", batch.source), ("target", batch.target)):
            for level, fine in pyramid.items():
                if not np.asarray(fine).all():
                    start = index // cuts * len(fine) + int(np.asarray(fine).argmin())
                    path = examples[min(start, len(examples) - 1)].path
                    raise InputError(
                        f"{path}: the features of the {side} network at {level} are not finite"
                    )


EMPTY: dict[str, Callable[..., Any]] = {"device": jnp.zeros, "host": np.zeros, "disk": _on_disk}


def cache_shapes(
    networks: Networks, num_images: int, cut: Tiles, levels: tuple[str, ...]
) -> FeaturePair:
    """The shapes of the rows of a cache of so many images."""
    num_tiles = num_images * len(tiles.corners(cut))
    return jax.tree.map(
        lambda grid: jax.ShapeDtypeStruct(
            (num_tiles * math.prod(grid.shape[1:3]), grid.shape[3]), np.float16
        ),
        feature_shapes(networks, cut.size, levels),
    )


def build_cache(
    networks: Networks,
    examples: Sequence[Example],
    cut: Tiles,
    levels: tuple[str, ...],
    place: str | None = None,
    num_datasets: int = 1,
) -> FeatureCache:
    """Extracts the features of every tile of every image once.

    Args:
        networks: the frozen networks.
        examples: the training images, of one data set after the other.
        cut: the size that they are resized to, and the tiles.
        levels: which to keep.
        place: see `FeatureCache`; chosen by size if None.
        num_datasets: how many data sets the examples are, all of the same number.

    Raises:
        InputError: an image that can't be read, or whose features are not finite.
    """
    shapes = cache_shapes(networks, len(examples), cut, levels)
    num_tiles = len(examples) * len(tiles.corners(cut))
    positions = {k: rows.shape[0] // num_tiles for k, rows in shapes.source.items()}
    nbytes = memory.tree_bytes(shapes)
    place = place or choose_place(nbytes)
    log.info("features of %d images: %.2f GiB on the %s", len(examples), nbytes / 2**30, place)
    rows = jax.tree.map(lambda s: EMPTY[place](s.shape, s.dtype), shapes)
    if place == "device":
        rows = sharding.everywhere(rows)
    store, done = _store if place == "device" else _store_on_host, 0
    finite: list[FeaturePair] = []
    batch_size, share = sharding.batch_size(image_files.BATCH_SIZE), sharding.share()
    for images, count in image_files.batches(examples, cut.image, batch_size, "features", share):
        for tile in tiles.cut(images, cut):
            features = extract(networks, sharding.spread(tile), levels)
            finite.append(_finite(features))
            new = jax.tree.map(lambda f, n=count: f[:n].reshape(-1, f.shape[-1]), features)
            rows = store(rows, new, {level: done * n for level, n in positions.items()})
            done += count
    _check_finite(finite, examples, len(tiles.corners(cut)))
    rows = jax.block_until_ready(rows)
    memory.release()
    return FeatureCache(rows, num_tiles // num_datasets, place, num_datasets)
