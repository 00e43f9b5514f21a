"""SPADE: nearest images, then nearest positions in them (Cohen and Hoshen, 2020)."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Key

from pfm_jax.backbones.networks import Network
from pfm_jax.baselines.features import Found, Memory, collected, of_length
from pfm_jax.methods import Spade
from pfm_jax.model.features import activations
from pfm_jax.model.nearest import nearest, squared_distances
from pfm_jax.types import Example

POOLED = "pooled"


def fit(
    network: Network, examples: Sequence[Example], size: int, method: Spade, key: Key[Array, ""]
) -> Memory:
    """Keeps everything: `pooled` `[N, C]`, and each stage `[N, h, w, C]` as float16."""
    del key
    found = collected(lambda images: _kept(network, images, method), examples, size, on_device=True)
    return {name: jnp.asarray(array) for name, array in found.items()}


@functools.partial(jax.jit, static_argnames="method")
def _kept(network: Network, images: Array, method: Spade) -> Memory:
    pyramid = activations(network, images)
    stages = {stage: pyramid[stage].astype(jnp.float16) for stage in method.stages}
    return {POOLED: pyramid[method.pooled].mean((1, 2)), **stages}


def grown(memory: Memory, method: Spade, times: float) -> Memory:
    """Copies of everything, as of `times` as many images."""
    del method
    return {name: of_length(array, times * len(array)) for name, array in memory.items()}


def maps(
    network: Network, memory: Memory, images: Array, method: Spade, _ignored: Array | None = None
) -> Found:
    """Squared distance of each position to the nearest in the nearest images, anywhere; image
    scores are the mean squared distance to those images."""
    pyramid, count = activations(network, images), min(method.neighbours, len(memory[POOLED]))
    distances, indices = nearest(pyramid[method.pooled].mean((1, 2)), memory[POOLED], count)

    def one(given: tuple[dict[str, Array], Array]) -> Array:
        features, near = given
        return _to_nearest(features, memory, near, method.stages)

    stages = {stage: pyramid[stage] for stage in method.stages}
    return Found(lax.map(one, (stages, indices)), (distances**2).mean(1))


def _to_nearest(
    features: dict[str, Float[Array, "h w C"]],
    memory: Memory,
    near: Array,
    stages: tuple[str, ...],
) -> Float[Array, "h w"]:
    """Squared distance of an image's positions to the nearest in some images of the memory.

    The squared distance of concatenated features is the sum of those of the stages; a coarse
    stage's, which several positions share, is computed once.
    """
    finest = features[stages[0]].shape[:2]

    def in_image(least: Array, image: Array) -> tuple[Array, None]:
        total = jnp.zeros((1, 1, 1, 1))
        for stage in stages[::-1]:
            own, other = features[stage], memory[stage][image].astype(jnp.float32)
            pairs = squared_distances(*(x.reshape(-1, x.shape[-1]) for x in (own, other)))
            total = _plus(pairs.reshape(*own.shape[:2], *own.shape[:2]), total)
        return jnp.minimum(least, total.min((2, 3))), None

    return lax.scan(in_image, jnp.full(finest, jnp.inf), near)[0]


def _plus(fine: Array, coarse: Array) -> Array:
    """Adds distances `[h, w, h, w]` of pairs of positions at a coarser grid to those at a finer."""
    parts = (
        n for own, few in zip(fine.shape, coarse.shape, strict=True) for n in (few, own // few)
    )
    return (fine.reshape(*parts) + jnp.expand_dims(coarse, (1, 3, 5, 7))).reshape(fine.shape)
