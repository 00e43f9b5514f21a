"""Features of positions and what surrounds them, and how far they are from remembered ones."""

from __future__ import annotations

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float

from pfm_jax.backbones.networks import Networks
from pfm_jax.model.features import pyramids
from pfm_jax.model.nearest import nearest
from pfm_jax.types import FeaturePyramid, stages

POSITIONS = 2048
"""Positions of a memory: as many of every data set, so that one program scores by all."""

CHANNELS = 512
"""Channels that each stage of a memory is averaged to."""


def patches(
    pyramid: FeaturePyramid, names: Sequence[str], channels: int = CHANNELS
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


def of_levels(pyramid: FeaturePyramid, levels: Sequence[str]) -> Float[Array, "B h w C"]:
    """Features of positions that a memory is of, from the target's pyramid: its stages that are
    mapped, but for the finest where others are coarser."""
    sides = {name: pyramid[name].shape[1] for name in (stages(level).target for level in levels)}
    finest = max(sides.values())
    coarser = [name for name, side in sides.items() if side < finest]
    return patches(pyramid, sorted(coarser or sides, key=lambda name: (-sides[name], name)))


def memory_shape(networks: Networks, levels: Sequence[str]) -> jax.ShapeDtypeStruct:
    """Shape `[M, C]` of a memory."""
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.uint8)
    one = jax.eval_shape(lambda n, x: of_levels(pyramids(n, x).target, levels), networks, image)
    return jax.ShapeDtypeStruct((POSITIONS, one.shape[-1]), one.dtype)


def distances(
    features: Float[Array, "B h w C"], memory: Float[Array, "M C"]
) -> Float[Array, "B h w"]:
    """Distance of each position to the nearest remembered one."""
    found, _ = nearest(features.reshape(-1, features.shape[-1]), memory, 1)
    return found.reshape(features.shape[:3])
