"""Anomaly maps of the levels -> maps at the resolution of the image, fused, and image scores."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, UInt8
from scipy.ndimage import gaussian_filter1d

from pfm_jax.backbones.networks import Networks
from pfm_jax.config import Config, MappingConfig, ScoringConfig
from pfm_jax.methods import Baseline
from pfm_jax.model import heads, patches, tiles
from pfm_jax.model.features import at_levels, feature_channels, pyramids
from pfm_jax.model.folded import FoldedHeads, anomaly_maps, fold, log_residual
from pfm_jax.model.tiles import Tiles
from pfm_jax.system import devices
from pfm_jax.types import BLANK, MEMORY, ScoreMaps

LEAST_MEAN = 1e-12
"""Floor for a map's mean, a power of which divides the map."""


class MappingModel(NamedTuple):
    """The model of a detector: what is learnt of normal images.

    Attributes:
        memory: features of each of their positions `[T, h, w, K, C]`, with `scoring.memory`; see
            `patches`.
    """

    heads: FoldedHeads
    memory: Array | None = None


def untrained(networks: Networks, config: Config) -> MappingModel:
    """A model of random heads, and a memory of zeros: of the shapes, and so the speed, of any."""
    channels, spec = feature_channels(networks, config.levels), patches.memory_spec(config)
    fresh = heads.init(jax.random.key(0), channels, config.mapping)
    memory = None if spec is None else jnp.zeros(patches.memory_shape(networks, spec).shape)
    return MappingModel(jax.jit(fold)(fresh), memory)


class ScoringSpec(NamedTuple):
    """Static data of scoring, derived once from a recipe.

    Attributes:
        network_precision: type of the networks' weights and activations.
        head_precision: type of the operands of the heads' products.
    """

    mapping: MappingConfig
    scoring: ScoringConfig
    tiles: Tiles
    network_precision: str
    head_precision: str
    baseline: Baseline | None = None


def scoring_spec(config: Config) -> ScoringSpec:
    """Derives the static data of scoring; resolves precision `"auto"` for this machine."""
    precision = config.scoring.precision
    return ScoringSpec(
        mapping=config.mapping,
        scoring=config.scoring,
        tiles=tiles.scoring_tiles(config.data),
        network_precision="bfloat16" if precision == "bfloat16" else "float32",
        head_precision=devices.resolve_precision(precision),
        baseline=config.baseline,
    )


def blanked(
    images: UInt8[Array, "B H W 3"], ignored: Bool[Array, "H W"] | None
) -> UInt8[Array, "B H W 3"]:
    """Blanks the pixels that are ignored."""
    if ignored is None:
        return images
    return jnp.where(ignored[None, ..., None], jnp.array(BLANK, jnp.uint8), images)


def upsample(maps: Float[Array, "B h w"], height: int, width: int) -> Float[Array, "B H W"]:
    """Resizes maps as torch's bilinear interpolation with `align_corners=False`."""
    return jax.image.resize(maps, (maps.shape[0], height, width), "bilinear", antialias=False)


def smooth(maps: Float[Array, "B H W"], sigma: float) -> Float[Array, "B H W"]:
    """Smooths maps by a Gaussian whose deviation is `sigma` times the side; reflects at the edges,
    as SciPy's `gaussian_filter`.
    """
    rows, columns = (gaussian_filter1d(np.eye(n), sigma * n, 0) for n in maps.shape[1:])
    kernels = (jnp.asarray(kernel, jnp.float32) for kernel in (rows, columns))
    return jnp.einsum("bhw,ih,jw->bij", maps, *kernels, precision="highest")


@functools.partial(jax.jit, static_argnames="config")
def fuse(
    levels: dict[str, Float[Array, "B H W"]],
    config: ScoringConfig,
    ignored: Bool[Array, "H W"] | None = None,
) -> ScoreMaps:
    """Fuses the levels' maps into one, and scores images by its soft maximum.

    The map is the levels' weighted mean, smoothed: the arithmetic mean (eq. 15) or the geometric
    one, of both levels and neighbours. `ignored` pixels have no part in the scores of images, and
    score 0.
    """
    geometric = config.fusion == "geometric"
    weights = {level: config.weights.get(level, 1.0) for level in levels}
    fused = jnp.float32(0)
    for level, maps in levels.items():
        own = maps
        if power := config.relative.get(level):
            own /= jnp.maximum(maps.mean((1, 2), keepdims=True), LEAST_MEAN) ** power
        fused += weights[level] * (log_residual(own) if geometric else own)
    fused /= sum(weights.values())
    fused = smooth(fused, config.smoothing) if config.smoothing else fused
    if ignored is not None:
        fused = jnp.where(ignored[None], -jnp.inf, fused)
    scores = soft_maximum(fused, config.sharpness)
    if geometric:
        fused, scores = jnp.exp(fused), jnp.exp(scores)
    if ignored is not None:
        fused = jnp.where(ignored[None], 0.0, fused)
    return ScoreMaps(levels, fused, scores)


def soft_maximum(maps: Float[Array, "B H W"], sharpness: float) -> Float[Array, " B"]:
    """log(mean(exp(q x))) / q over each map's pixels x, for a sharpness q; 0 for the maximum."""
    if not sharpness:
        return maps.max((1, 2))
    pixels = maps.shape[1] * maps.shape[2]
    total = jax.nn.logsumexp(sharpness * maps, (1, 2))
    return (total - jnp.log(jnp.float32(pixels))) / sharpness


def score(
    networks: Networks,
    model: MappingModel,
    images: UInt8[Array, "B H W 3"],
    spec: ScoringSpec,
    ignored: Bool[Array, "H W"] | None = None,
) -> ScoreMaps:
    """Scores images: networks, heads, residuals, upsampling and fusion.

    What is `ignored` is blank to the networks.
    """
    images = blanked(images, ignored)
    how, dtype, levels = spec.scoring, jnp.dtype(spec.head_precision), tuple(spec.mapping.latent)
    expected = tuple(k for k in levels if how.expected and k not in how.relative)

    def maps_of(images: Array, memory: Array | None) -> dict[str, Array]:
        pair = pyramids(networks, images, spec.network_precision)
        features = at_levels(pair, levels, networks.neighbourhood)
        maps = anomaly_maps(model.heads, features, spec.mapping, expected, dtype)
        if memory is not None:
            own = patches.memory_features(pair.target, levels)
            maps[MEMORY] = patches.distances(own, memory)
        return {level: upsample(m, *images.shape[1:3]) for level, m in maps.items()}

    maps = tiles.blended(maps_of, images, spec.tiles, model.memory)
    return fuse(maps, how, ignored)
