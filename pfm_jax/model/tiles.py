"""Large images in overlapping tiles, which the networks see one by one.

The heads look at single positions, so they need not know where a tile lies, and one set of heads
serves all. An image that is not cut is one tile.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, Shaped

from pfm_jax.config import DataConfig

Tree = TypeVar("Tree")


class Tiles(NamedTuple):
    """Tiling of square images, in pixels: sides of image and tile, least overlap of neighbours."""

    image: int
    size: int
    overlap: int


def scoring_tiles(data: DataConfig) -> Tiles:
    """Tiles of images to score."""
    size = data.tile_size or data.image_size
    return Tiles(data.image_size, size, data.tile_overlap if size < data.image_size else 0)


def training_tiles(data: DataConfig) -> Tiles:
    """Tiles of images to train on: without overlap, so that each pixel is seen about once."""
    return scoring_tiles(data)._replace(overlap=0)


def corners(tiles: Tiles) -> list[tuple[int, int]]:
    """Top and left of every tile: as few as cover the image, evenly spread."""
    count = -(-(tiles.image - tiles.overlap) // (tiles.size - tiles.overlap))
    starts = np.linspace(0, tiles.image - tiles.size, count).round().astype(int).tolist()
    return [(top, left) for top in starts for left in starts]


def each(
    function: Callable[[Array, Any], Tree],
    images: Shaped[Array, "B H W C"],
    tiles: Tiles,
    own: Any = None,
) -> Tree:
    """Applies a function to tile after tile of all images, in the memory of one.

    `function`: tiles `[B, size, size, C]`, and what is their `own`, of arrays `[T, ...]` -> a
    pytree. Returns its results, stacked `[T, ...]`.
    """
    places = corners(tiles)
    if len(places) == 1:
        found = function(images, jax.tree.map(lambda leaf: leaf[0], own))
        return jax.tree.map(lambda leaf: leaf[None], found)
    shape = (images.shape[0], tiles.size, tiles.size, images.shape[3])

    def one(tile: tuple[Array, Any]) -> Tree:
        (top, left), given = tile
        return function(lax.dynamic_slice(images, (0, top, left, 0), shape), given)

    return lax.map(one, (jnp.array(places), own))


def window(tiles: Tiles) -> Float[np.ndarray, "s s"]:
    """Weight of a tile's pixels: 1, falling over the overlap to its rim."""
    ramp = np.minimum(np.arange(tiles.size) + 0.5, np.arange(tiles.size)[::-1] + 0.5)
    side = np.minimum(1, ramp / max(tiles.overlap, 1)).astype(np.float32)
    return side[:, None] * side[None]


def blended(
    maps_of: Callable[[Array, Any], dict[str, Array]],
    images: Shaped[Array, "B H W C"],
    tiles: Tiles,
    own: Any = None,
) -> dict[str, Float[Array, "B H W"]]:
    """Blends the maps of an image's tiles into maps of the image, in the memory of one tile.

    `maps_of`: as the function of `each`, to maps `[B, size, size]` by name.
    """
    places = corners(tiles)
    found = each(maps_of, images, tiles, own)
    if len(places) == 1:
        return jax.tree.map(lambda maps: maps[0], found)
    weight = window(tiles)
    total = np.zeros((tiles.image, tiles.image), np.float32)
    for top, left in places:
        total[top : top + tiles.size, left : left + tiles.size] += weight

    def joined(maps: Array) -> Array:
        whole = jnp.zeros((images.shape[0], tiles.image, tiles.image))
        for index, (top, left) in enumerate(places):
            part = maps[index] * weight[None]
            whole = whole.at[:, top : top + tiles.size, left : left + tiles.size].add(part)
        return whole / total[None]

    return jax.tree.map(joined, found)
