"""Anomaly maps of the levels -> maps at the resolution of the image, fused, and image scores."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from jax import Array

from pfm_jax import mapping
from pfm_jax.config import MappingConfig
from pfm_jax.features import Networks, extract
from pfm_jax.types import Params, ScoreMaps


def upsample(maps: Array, height: int, width: int) -> Array:
    """[B, h, w] -> [B, height, width]: torch's bilinear with `align_corners=False`."""
    return jax.image.resize(maps, (maps.shape[0], height, width), "bilinear")


def fuse(levels: dict[str, Array], height: int, width: int) -> ScoreMaps:
    """Upsamples the map of each level and takes their mean (eq. 15); the score is its maximum."""
    upsampled = {level: upsample(maps, height, width) for level, maps in levels.items()}
    fused = sum(upsampled.values(), jnp.float32(0)) / len(upsampled)
    return ScoreMaps(upsampled, fused, image_scores(fused))


def image_scores(maps: Array) -> Array:
    """[B, H, W] -> [B], the maximum (eq. 9)."""
    return maps.max((1, 2))


@functools.partial(jax.jit, static_argnames="config")
def score_images(
    networks: Networks, params: Params, batch_stats: Params, images: Array, config: MappingConfig
) -> ScoreMaps:
    """uint8 RGB `[B, H, W, 3]` -> anomaly maps and scores: the whole of inference."""
    features = extract(networks, images, tuple(config.latent))
    heads = mapping.make_heads(config, features)
    levels = mapping.anomaly_maps(heads, params, batch_stats, features, config)
    return fuse(levels, *images.shape[1:3])
