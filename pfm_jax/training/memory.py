"""Memory of normal images: features of each position, kept once the heads are trained."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax import Array
from jaxtyping import Float, UInt8, UInt32

from pfm_jax.backbones.networks import Networks
from pfm_jax.config import Config
from pfm_jax.datasets.images import batches
from pfm_jax.model import patches, tiles
from pfm_jax.model.features import pyramids
from pfm_jax.model.nearest import coreset
from pfm_jax.model.tiles import Tiles
from pfm_jax.system import devices
from pfm_jax.types import Example

CANDIDATES = 2**20
"""Positions of all images together that it is chosen from, at most: a gibibyte of features."""

PROJECTION = 128
"""Dimensions of the random projection that it is chosen in."""

log = logging.getLogger(__name__)


def fit(
    networks: Networks, examples: Sequence[Example], config: Config
) -> Float[Array, "T h w K C"]:
    """Keeps `patches.KEPT` features of each position, on every device: of images that differ there.

    Of fewer images some are kept twice. Raises InputError: an image that can't be read.
    """
    levels, cut = tuple(config.mapping.latent), tiles.scoring_tiles(config.data)
    count, height, width, *_ = patches.memory_shape(networks, levels, cut).shape
    most = max(CANDIDATES // (count * height * width), 1)
    if (every := -(-len(examples) // most)) > 1:
        log.warning("the memory is of %d of %d images", len(examples[::every]), len(examples))
        examples = examples[::every]
    found = []
    for images, real in batches(examples, config.data.image_size, devices.batch_size(), "memory"):
        seen = _seen(networks, devices.shard_batch(images), levels, cut)
        found.append(devices.fetch(seen)[:, :real])
    features = np.concatenate(found, 1)
    # Over and over, up to a power of two: a program is compiled for each.
    room = max(1 << (len(examples) - 1).bit_length(), patches.KEPT)
    which, seed = np.arange(room) % len(examples), np.uint32(config.seed)
    kept = [[_chosen(tile[which, row], seed) for row in range(height)] for tile in features]
    rows: Any = np.array(jax.device_get(kept))
    return devices.replicate(rows)


@functools.partial(jax.jit, static_argnames=("levels", "cut"))
def _seen(
    networks: Networks, images: UInt8[Array, "B H W 3"], levels: tuple[str, ...], cut: Tiles
) -> Float[Array, "T B h w C"]:
    def features(tile: Array, _: None) -> Array:
        return patches.of_levels(pyramids(networks, tile).target, levels)

    return tiles.each(features, images, cut)


@jax.jit
def _chosen(features: Float[Array, "N w C"], seed: UInt32[Array, ""]) -> Float[Array, "w K C"]:
    """Features of a coreset of the images, another at each of a row's positions."""
    key = jax.random.key(seed)

    def chosen(own: Array) -> Array:
        return own[coreset(own, key, patches.KEPT, PROJECTION)]

    return jax.vmap(chosen)(features.swapaxes(0, 1))
