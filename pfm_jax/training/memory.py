"""Memory of normal images: a coreset of their positions, kept once the heads are trained."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence

import jax
import jax.numpy as jnp
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

CANDIDATES = 2**17
"""Positions that they are chosen from, drawn at random of all images alike."""

MOST_OF_IMAGE = 1024
"""Positions drawn of an image, at most."""

PROJECTION = 128
"""Dimensions of the random projection that they are chosen in."""

log = logging.getLogger(__name__)


def fit(networks: Networks, examples: Sequence[Example], config: Config) -> Float[Array, "M C"]:
    """Keeps positions of normal images, on every device; see `patches.of_levels`.

    Where images have fewer than `patches.POSITIONS`, some are kept twice. Raises InputError: an
    image that can't be read.
    """
    if (every := -(-len(examples) // CANDIDATES)) > 1:
        log.warning("the memory is of %d of %d images", len(examples[::every]), len(examples))
        examples = examples[::every]
    levels, cut = tuple(config.mapping.latent), tiles.training_tiles(config.data)
    most, found, done = CANDIDATES // len(examples), [], 0
    for images, real in batches(examples, config.data.image_size, devices.batch_size(), "memory"):
        which = np.uint32(config.seed), np.uint32(done + 1)
        drawn = _drawn(networks, devices.shard_batch(images), *which, levels, cut)
        found.append(devices.fetch(drawn)[:real, :most])
        done += real
    rows = np.concatenate(found).reshape(-1, found[0].shape[-1])
    # Over and over, up to a power of two: a program is compiled for each.
    room = max(1 << (len(rows) - 1).bit_length(), patches.POSITIONS)
    candidates = np.resize(rows, (room, rows.shape[1]))
    return devices.replicate(_chosen(candidates, np.uint32(config.seed)))


@functools.partial(jax.jit, static_argnames=("levels", "cut"))
def _drawn(
    networks: Networks,
    images: UInt8[Array, "B H W 3"],
    seed: UInt32[Array, ""],
    batch: UInt32[Array, ""],
    levels: tuple[str, ...],
    cut: Tiles,
) -> Float[Array, "B K C"]:
    """Positions drawn of each image, of all its tiles in turn, by a key of seed and batch."""
    key = jax.random.fold_in(jax.random.key(seed), batch)
    of_tile = max(MOST_OF_IMAGE // len(tiles.corners(cut)), 1)

    def drawn(tile: Array) -> Array:
        features = patches.of_levels(pyramids(networks, tile).target, levels)
        rows = features.reshape(tile.shape[0], -1, features.shape[-1])
        shape = (min(of_tile, rows.shape[1]),)
        keys = jax.random.split(key, tile.shape[0])
        return jax.vmap(lambda own, of: jax.random.choice(own, of, shape, replace=False))(
            keys, rows
        )

    found = jnp.moveaxis(tiles.each(drawn, images, cut), 0, 2)
    return found.reshape(found.shape[0], -1, found.shape[-1])


@jax.jit
def _chosen(candidates: Float[Array, "N C"], seed: UInt32[Array, ""]) -> Float[Array, "M C"]:
    key = jax.random.fold_in(jax.random.key(seed), 0)  # batches are numbered from 1
    return candidates[coreset(candidates, key, patches.POSITIONS, PROJECTION)]
