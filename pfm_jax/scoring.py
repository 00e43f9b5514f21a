"""Anomaly maps of the levels -> maps at the resolution of the image, fused, and image scores."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from scipy.ndimage import gaussian_filter1d

from pfm_jax import images as image_files
from pfm_jax import mapping, sharding, tiles
from pfm_jax.config import Config, MappingConfig, ScoringConfig
from pfm_jax.features import Networks, extract
from pfm_jax.layers import operand_dtype
from pfm_jax.mapping import FoldedHeads
from pfm_jax.tiles import Tiles
from pfm_jax.types import Example, InputError, ScoreMaps

TINY = 1e-12
"""The least mean of a map that it is divided by the root of."""


def upsample(maps: Array, height: int, width: int) -> Array:
    """[B, h, w] -> [B, height, width]: torch's bilinear with `align_corners=False`."""
    shape = maps.shape[0], height, width
    return jax.image.resize(maps, shape, "bilinear", antialias=False)


@functools.partial(jax.jit, static_argnames="config")
def fuse(levels: dict[str, Array], config: ScoringConfig) -> ScoreMaps:
    """The mean of the levels' maps `[B, H, W]` (eq. 15), smoothed and made relative as `config`
    says; an image's score is its maximum (eq. 9).
    """
    fused = sum(levels.values(), jnp.float32(0)) / len(levels)
    fused = smoothed(fused, config.smoothing) if config.smoothing else fused
    if config.relative:
        # Normal parts differ in how well they are mapped as a whole. The mean itself, taken off or
        # divided by, would hide a defect that covers the image; its root lets half of it through.
        fused /= jnp.sqrt(jnp.maximum(fused.mean((1, 2), keepdims=True), TINY))
    return ScoreMaps(levels, fused, fused.max((1, 2)))


def smoothed(maps: Array, sigma: float) -> Array:
    """`[B, H, W]` under a Gaussian whose deviation is the part `sigma` of the side (SciPy's
    `gaussian_filter`, which reflects at the edges).
    """
    rows, columns = (gaussian_filter1d(np.eye(n), sigma * n, 0) for n in maps.shape[1:])
    kernels = (jnp.asarray(kernel, jnp.float32) for kernel in (rows, columns))
    return jnp.einsum("bhw,ih,jw->bij", maps, *kernels, precision="highest")


@functools.partial(jax.jit, static_argnames=("config", "scoring", "cut"))
def score_images(
    networks: Networks,
    heads: FoldedHeads,
    images: Array,
    config: MappingConfig,
    scoring: ScoringConfig,
    cut: Tiles | None = None,
) -> ScoreMaps:
    """uint8 RGB `[B, H, W, 3]` -> anomaly maps and scores: the whole of inference.

    Args:
        networks: the frozen networks.
        heads: of `mapping.fold`, and of `standard.measured` if the recipe says so.
        images: see above.
        config: of the heads.
        scoring: precision, and what becomes of the maps.
        cut: into which tiles; None: the networks see the whole image.
    """
    precision = scoring.precision
    of_networks = "bfloat16" if precision == "bfloat16" else "float32"

    def maps_of(images: Array) -> dict[str, Array]:
        features = extract(networks, images, tuple(config.latent), of_networks)
        levels = mapping.anomaly_maps(heads, features, config, operand_dtype(precision))
        return {level: upsample(maps, *images.shape[1:3]) for level, maps in levels.items()}

    found = fuse(tiles.blended(maps_of, images, cut) if cut else maps_of(images), scoring)
    if heads.standard is None:
        return found
    fused = (found.fused - heads.standard.mean[None]) / heads.standard.deviation[None]
    return ScoreMaps(found.levels, fused, fused.max((1, 2)))


def score_examples(
    networks: Networks,
    heads: FoldedHeads,
    examples: Sequence[Example],
    config: Config,
    what: str | None = None,
) -> Iterator[ScoreMaps]:
    """Scores a data set, batch after batch; see `images.batches` for decoding and `what`.

    The devices have the next batch already while the consumer looks at one.

    Yields:
        What `score_images` says of them, on the host.

    Raises:
        InputError: an image that can't be read, or whose score is not finite.
    """
    waiting: tuple[ScoreMaps, int] | None = None
    done = 0

    def on_host(found: ScoreMaps, count: int) -> ScoreMaps:
        nonlocal done
        real = jax.tree.map(lambda array: array[:count], sharding.on_host(found))
        if not (finite := np.isfinite(real.image_scores)).all():
            raise InputError(f"{examples[done + finite.argmin()].path}: its score is not finite")
        done += count
        return real

    cut = tiles.scoring_tiles(config.data)
    batch_size, share = sharding.batch_size(image_files.BATCH_SIZE), sharding.share()
    for images, count in image_files.batches(
        examples, config.data.image_size, batch_size, what, share
    ):
        placed = sharding.spread(images)
        found = score_images(networks, heads, placed, config.mapping, config.scoring, cut)
        if waiting:
            yield on_host(*waiting)
        waiting = found, count
    if waiting:
        yield on_host(*waiting)


def image_scores_of(
    networks: Networks,
    heads: FoldedHeads,
    examples: Sequence[Example],
    config: Config,
    what: str | None = None,
) -> np.ndarray:
    """float32 `[N]`, the image scores of a data set; see `score_examples`."""
    found = score_examples(networks, heads, examples, config, what)
    return np.concatenate([np.zeros(0, np.float32), *(maps.image_scores for maps in found)])
