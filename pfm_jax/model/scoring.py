"""Anomaly maps of the levels -> maps at the resolution of the image, fused, and image scores."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, UInt8
from scipy.ndimage import gaussian_filter1d

from pfm_jax.backbones.networks import Networks
from pfm_jax.config import Config, MappingConfig, ScoringConfig
from pfm_jax.model import tiles
from pfm_jax.model.features import extract
from pfm_jax.model.heads import FoldedHeads, anomaly_maps
from pfm_jax.model.tiles import Tiles
from pfm_jax.system import devices
from pfm_jax.types import Normality, ScoreMaps

LEAST_MEAN = 1e-12
"""Floor for a map's mean, whose root divides the map."""


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


def scoring_spec(config: Config) -> ScoringSpec:
    """Derives the static data of scoring; resolves precision `"auto"` for this machine."""
    precision = config.scoring.precision
    return ScoringSpec(
        mapping=config.mapping,
        scoring=config.scoring,
        tiles=tiles.scoring_tiles(config.data),
        network_precision="bfloat16" if precision == "bfloat16" else "float32",
        head_precision=devices.resolve_precision(precision),
    )


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
    normality: Normality | None = None,
) -> ScoreMaps:
    """Fuses the levels' maps into one (eq. 15), whose maximum is the image's score (eq. 9).

    A `normality` standardises each position: less its mean, divided by its deviation.
    """
    fused = sum(levels.values(), jnp.float32(0)) / len(levels)
    fused = smooth(fused, config.smoothing) if config.smoothing else fused
    if config.relative:
        # Normal parts differ in how well they are mapped as a whole. The mean itself, subtracted or
        # divided by, would hide a defect that covers the image; its root lets half of it through.
        mean = fused.mean((1, 2), keepdims=True)
        fused /= jnp.sqrt(jnp.maximum(mean, LEAST_MEAN))
    if normality is not None:
        fused = (fused - normality.mean[None]) / normality.deviation[None]
    return ScoreMaps(levels, fused, fused.max((1, 2)))


def score(
    networks: Networks,
    heads: FoldedHeads,
    normality: Normality | None,
    images: UInt8[Array, "B H W 3"],
    spec: ScoringSpec,
) -> ScoreMaps:
    """Scores images: networks, heads, residuals, upsampling and fusion."""

    def maps_of(images: Array) -> dict[str, Array]:
        features = extract(networks, images, tuple(spec.mapping.latent), spec.network_precision)
        maps = anomaly_maps(heads, features, spec.mapping, jnp.dtype(spec.head_precision))
        return {level: upsample(m, *images.shape[1:3]) for level, m in maps.items()}

    return fuse(tiles.blended(maps_of, images, spec.tiles), spec.scoring, normality)
