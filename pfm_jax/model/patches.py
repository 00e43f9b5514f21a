"""Features of positions and what surrounds them, and how far they are from normal ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float

from pfm_jax.backbones.networks import Networks
from pfm_jax.config import Config
from pfm_jax.model import tiles
from pfm_jax.model.features import pyramids
from pfm_jax.model.tiles import Tiles
from pfm_jax.types import FeaturePyramid, stages

KEPT = 32
"""Features that a memory keeps per position: fixed, so that one compiled program scores by the
memory of any data set."""

CHANNELS = 128
"""Channels per stage of a memory, after averaging."""


class MemorySpec(NamedTuple):
    """Features a memory is made of: the target's stages of some levels, in the tiles to score."""

    levels: tuple[str, ...]
    tiles: Tiles


def memory_spec(config: Config) -> MemorySpec | None:
    """The spec of a recipe's memory; None if it has none."""
    if not config.scoring.memory:
        return None
    return MemorySpec(config.mapped, tiles.scoring_tiles(config.data))


def patches(
    pyramid: FeaturePyramid, names: Sequence[str], channels: int
) -> Float[Array, "B h w C"]:
    """Features of positions, as PatchCore's (Roth et al., 2022, section 3.1): each stage averaged
    over 3x3 positions and to so many channels, at the grid of the first."""
    batch, height, width, _ = pyramid[names[0]].shape
    found = []
    for stage in names:
        # The border is padded with zeros that count, as in the released code.
        local = nn.avg_pool(pyramid[stage], (3, 3), (1, 1), "SAME")
        few = local @ _averaging(local.shape[-1], channels)
        shape = batch, height, width, channels
        found.append(jax.image.resize(few, shape, "bilinear", antialias=False))
    return jnp.concatenate(found, -1)


def _averaging(channels: int, count: int) -> np.ndarray:
    """Matrix that averages channels to `count` as torch's `adaptive_avg_pool1d`."""
    matrix = np.zeros((channels, count), np.float32)
    for index in range(count):
        first, last = index * channels // count, -(-(index + 1) * channels // count)
        matrix[first:last, index] = 1 / (last - first)
    return matrix


def memory_features(pyramid: FeaturePyramid, levels: Sequence[str]) -> Float[Array, "B h w C"]:
    """Features for a memory, of the target's pyramid: its mapped stages, without the finest if
    there are coarser ones."""
    sides = {name: pyramid[name].shape[1] for name in (stages(level).target for level in levels)}
    finest = max(sides.values())
    coarser = [name for name, side in sides.items() if side < finest]
    names = sorted(coarser or sides, key=lambda name: (-sides[name], name))
    return patches(pyramid, names, CHANNELS)


def memory_shape(networks: Networks, spec: MemorySpec) -> jax.ShapeDtypeStruct:
    """Shape `[T, h, w, K, C]` of a memory: `KEPT` features at each position of each tile."""

    def features(networks: Networks, tile: Array) -> Array:
        return memory_features(pyramids(networks, tile).target, spec.levels)

    side = spec.tiles.size
    image = jax.ShapeDtypeStruct((1, side, side, 3), np.uint8)
    one = jax.eval_shape(features, networks, image)
    _, height, width, channels = one.shape
    shape = len(tiles.corners(spec.tiles)), height, width, KEPT, channels
    return jax.ShapeDtypeStruct(shape, one.dtype)


def distances(
    features: Float[Array, "B h w C"], memory: Float[Array, "h w K C"]
) -> Float[Array, "B h w"]:
    """Distance of each position's features to the nearest of a memory there or next to it."""
    height, width, kept, channels = memory.shape
    steps = [(y, x) for y in range(3) for x in range(3)]
    wide = jnp.pad(features, ((0, 0), (1, 1), (1, 1), (0, 0)))
    # A memory is far larger than features: it is read once, with the positions around each of its.
    around = jnp.stack([wide[:, y : y + height, x : x + width] for y, x in steps], 3)
    products = jnp.einsum("bhwsc,hwkc->bhwsk", around, memory, precision="highest")
    squares = (memory**2).sum(-1)[None, :, :, None] - 2 * products
    own = kept * jnp.arange(height * width, dtype=jnp.int32).reshape(1, height, width, 1)

    def as_seen(found: Array, outside: float | int) -> Array:
        """Re-indexes results from (position of the memory, offset of the query) to (position of
        the query, offset of the memory)."""
        wide = jnp.pad(found, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=outside)
        parts = [
            wide[:, 2 - y : 2 - y + height, 2 - x : 2 - x + width, index]
            for index, (y, x) in enumerate(steps)
        ]
        return jnp.stack(parts, -1)

    best = lax.argmin(as_seen(squares.min(-1), jnp.inf), 3, jnp.int32)[..., None]
    at = as_seen(own + lax.argmin(squares, 4, jnp.int32), 0)
    nearest = memory.reshape(-1, channels)[jnp.take_along_axis(at, best, 3)[..., 0]]
    # As differences: products of large norms lose the small distances.
    return jnp.linalg.norm(features - nearest, axis=-1)
