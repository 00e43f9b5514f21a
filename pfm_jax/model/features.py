"""Images -> L2-normalised features of the frozen networks, level by level."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, UInt8

from pfm_jax.backbones.backbone import Backbone
from pfm_jax.backbones.networks import Network, Networks
from pfm_jax.types import FeaturePyramid, Features, Pair, stages


def l2_normalize(x: Float[Array, "*batch C"]) -> Float[Array, "*batch C"]:
    """Scales vectors on the last axis to norm 1; zero stays zero (torch's `F.normalize`)."""
    return x / jnp.sqrt(jnp.maximum(jnp.sum(x * x, -1, keepdims=True), 1e-24))


def neighbourhood_mean(features: Float[Array, "B h w C"], side: int) -> Float[Array, "B h w C"]:
    """Averages unit vectors over `side` x `side` positions and normalises the means.

    `side` is odd; at the edges the mean is over the positions that exist. Close to how PatchCore
    aggregates its features (Roth et al., 2022).
    """
    for axis in (1, 2):
        ends = [(side // 2, side // 2) if at == axis else (0, 0) for at in range(4)]
        padded, length = jnp.pad(features, ends), features.shape[axis]
        shifted = (lax.slice_in_dim(padded, at, at + length, axis=axis) for at in range(side))
        features = sum(shifted, jnp.float32(0))
    return l2_normalize(features)


def normalized(images: Array, backbone: Backbone) -> Float[Array, "B H W 3"]:
    """Images `[B, H, W, 3]` from 0 to 255 as a backbone's are in pre-training."""
    mean, std = (jnp.array(values).reshape(1, 1, 1, 3) for values in (backbone.mean, backbone.std))
    return (images / 255.0 - mean) / std


def activations(
    network: Network, images: UInt8[Array, "B H W 3"], precision: str = "float32"
) -> FeaturePyramid:
    """Extracts the features `[B, h, w, C]` of every stage as the network gives them, as float32.

    `precision` is the type of the network's weights and activations.
    """
    backbone = network.backbone
    scaled = normalized(images, backbone)
    cast = jax.tree.map(lambda array: array.astype(precision), (network.params, scaled))
    pyramid: FeaturePyramid = backbone.module.apply(*cast)  # type: ignore[assignment]
    return {stage: f.astype(jnp.float32) for stage, f in pyramid.items()}


def pyramids(
    networks: Networks, images: UInt8[Array, "B H W 3"], precision: str = "float32"
) -> Pair[FeaturePyramid]:
    """Extracts both networks' `activations`, once if they are one network."""
    source = target = activations(networks.source, images, precision)
    if networks.target is not None:
        target = activations(networks.target, images, precision)
    return Pair(source, target)


def feature_pyramid(pyramid: FeaturePyramid, neighbourhood: int = 1) -> FeaturePyramid:
    """Unit vectors `[B, h, w, C]` of every stage (eq. 4 and below eq. 6), of `activations`.

    `neighbourhood` is the side that `neighbourhood_mean` averages over.
    """
    unit = {stage: l2_normalize(f) for stage, f in pyramid.items()}
    if neighbourhood == 1:
        return unit
    return {stage: neighbourhood_mean(f, neighbourhood) for stage, f in unit.items()}


@functools.partial(jax.jit, static_argnames="levels")
def extract(
    networks: Networks, images: UInt8[Array, "B H W 3"], levels: tuple[str, ...]
) -> Features:
    """Extracts both networks' features `[B, h, w, C]` at some levels; see `at_levels`."""
    return at_levels(pyramids(networks, images), levels, networks.neighbourhood)


def at_levels(
    pair: Pair[FeaturePyramid], levels: Sequence[str], neighbourhood: int = 1
) -> Features:
    """Unit vectors of both networks `[B, h, w, C]` at some levels; see `feature_pyramid`.

    Where the stages of a level have different strides, the coarser is resized to the finer.
    """
    source = target = feature_pyramid(pair.source, neighbourhood)
    if pair.target is not pair.source:
        target = feature_pyramid(pair.target, neighbourhood)
    ends = ((level, stages(level)) for level in levels)
    return {level: _at_finer(source[one.source], target[one.target]) for level, one in ends}


def _at_finer(source: Array, target: Array) -> Pair[Array]:
    grid = np.maximum(source.shape[1:3], target.shape[1:3])

    def at_grid(features: Array) -> Array:
        if features.shape[1:3] == tuple(grid):
            return features
        shape = features.shape[0], *grid, features.shape[-1]
        return l2_normalize(jax.image.resize(features, shape, "bilinear", antialias=False))

    return Pair(at_grid(source), at_grid(target))


def feature_channels(networks: Networks, levels: tuple[str, ...]) -> dict[str, Pair[int]]:
    """Level -> number of channels of each network's features."""
    shapes = feature_shapes(networks, levels, 64)
    return {k: Pair(s.shape[-1], t.shape[-1]) for k, (s, t) in shapes.items()}


def feature_shapes(
    networks: Networks, levels: tuple[str, ...], size: int
) -> dict[str, Pair[jax.ShapeDtypeStruct]]:
    """Level -> shapes `[1, h, w, C]` of the features of a square image, `size` pixels a side."""
    image = jax.ShapeDtypeStruct((1, size, size, 3), np.uint8)
    shapes: dict[str, Pair[jax.ShapeDtypeStruct]] = jax.eval_shape(
        functools.partial(extract, levels=levels), networks, image
    )
    return shapes
