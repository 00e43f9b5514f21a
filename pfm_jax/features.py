"""Images -> the pyramids of unit vectors that the two frozen networks make of them."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from pfm_jax import sharding
from pfm_jax.backbones import Backbone
from pfm_jax.pretrained import Weights
from pfm_jax.types import FeaturePair, FeaturePyramid, Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Networks:
    """The two frozen networks. The weights are leaves, all else is static.

    Attributes:
        source, target: their weights.
        source_backbone, target_backbone: their architectures.
        neighbourhood: see `averaged`.
    """

    source: Params
    target: Params
    source_backbone: Backbone = dataclasses.field(metadata={"static": True})
    target_backbone: Backbone = dataclasses.field(metadata={"static": True})
    neighbourhood: int = dataclasses.field(default=1, metadata={"static": True})


def pair(source: Weights, target: Weights, neighbourhood: int = 1) -> Networks:
    """Two networks with their weights on every device."""
    params = sharding.everywhere((source.params, target.params))
    return Networks(params[0], params[1], source.backbone, target.backbone, neighbourhood)


def l2_normalize(x: Array) -> Array:
    """Scales vectors on the last axis to norm 1; zero stays zero (torch's `F.normalize`)."""
    return x / jnp.sqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), 1e-24))


def averaged(features: Array, side: int) -> Array:
    """Unit vectors `[B, h, w, C]` -> the directions of their means over `side` x `side` positions
    (an odd number; at the edges over those that there are), much as PatchCore makes its features.
    """
    for axis in (1, 2):
        ends = [(side // 2, side // 2) if at == axis else (0, 0) for at in range(4)]
        padded, length = jnp.pad(features, ends), features.shape[axis]
        shifted = (lax.slice_in_dim(padded, at, at + length, axis=axis) for at in range(side))
        features = sum(shifted, jnp.float32(0))
    return l2_normalize(features)


def feature_pyramid(
    backbone: Backbone, params: Params, images: Array, precision: str, neighbourhood: int = 1
) -> FeaturePyramid:
    """uint8 RGB `[B, H, W, 3]` -> level -> unit vectors `[B, h, w, C]` (eq. 4 and below eq. 6)."""
    mean, std = (jnp.array(values).reshape(1, 1, 1, 3) for values in (backbone.mean, backbone.std))
    scaled = (images / 255.0 - mean) / std
    rounded = jax.tree.map(lambda array: array.astype(precision), (params, scaled))
    pyramid: FeaturePyramid = backbone.module.apply(*rounded)  # type: ignore[assignment]
    unit = {level: l2_normalize(f.astype(jnp.float32)) for level, f in pyramid.items()}
    if neighbourhood == 1:
        return unit
    return {level: averaged(f, neighbourhood) for level, f in unit.items()}


@functools.partial(jax.jit, static_argnames=("levels", "precision"))
def extract(
    networks: Networks, images: Array, levels: tuple[str, ...], precision: str = "float32"
) -> FeaturePair:
    """Both pyramids `[B, h, w, C]` of uint8 images `[B, H, W, 3]`, float32.

    `precision` is that of the networks' weights and activations.
    """
    how = images, precision, networks.neighbourhood
    source = feature_pyramid(networks.source_backbone, networks.source, *how)
    target = feature_pyramid(networks.target_backbone, networks.target, *how)
    return FeaturePair({k: source[k] for k in levels}, {k: target[k] for k in levels})


def feature_shapes(networks: Networks, size: int, levels: tuple[str, ...]) -> FeaturePair:
    """The shapes `[1, h, w, C]` of what `extract` gives of an image."""
    image = jax.ShapeDtypeStruct((1, size, size, 3), np.uint8)
    return jax.eval_shape(functools.partial(extract, levels=levels), networks, image)
