"""PatchCore: nearest neighbours in a coreset of positions (Roth et al., 2022)."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float, Int, Key

from pfm_jax.backbones.networks import Network
from pfm_jax.baselines.features import Found, Memory, collected, of_length
from pfm_jax.baselines.nearest import nearest, squared_distances
from pfm_jax.methods import PatchCore
from pfm_jax.model.features import activations
from pfm_jax.types import Example

log = logging.getLogger(__name__)


def fit(
    network: Network, examples: Sequence[Example], size: int, method: PatchCore, key: Key[Array, ""]
) -> Memory:
    """Keeps a coreset of the positions of normal images: `vectors` `[M, C]`."""
    found = collected(lambda images: {"": patches(network, images, method)}, examples, size)
    vectors = found[""].reshape(-1, found[""].shape[-1])
    few, first, project = jax.random.split(key, 3)
    if len(vectors) > method.most_positions:
        log.warning(
            "the coreset is of %d of %d positions, drawn at random (baseline.most_positions)",
            method.most_positions,
            len(vectors),
        )
        every = np.asarray(jax.random.permutation(few, len(vectors)))
        vectors = vectors[np.sort(every[: method.most_positions])]
    count = max(round(method.coreset * len(vectors)), 1)
    shape = vectors.shape[-1], method.projection
    projected = jnp.dot(vectors, jax.random.normal(project, shape), precision="highest")
    chosen = coreset(projected, jax.random.randint(first, (), 0, len(vectors)), count)
    return {"vectors": jnp.asarray(vectors[np.asarray(chosen)])}


def grown(memory: Memory, method: PatchCore, times: float) -> Memory:
    """Copies of the coreset, as of `times` as many images."""
    vectors, most = memory["vectors"], method.coreset * method.most_positions
    return {"vectors": of_length(vectors, min(times * len(vectors), most))}


def maps(
    network: Network,
    memory: Memory,
    images: Array,
    method: PatchCore,
    ignored: Bool[Array, "H W"] | None = None,
) -> Found:
    """Distance of each position to the nearest kept one. Image scores are the largest, weighted by
    its neighbourhood (eq. 7 of the paper: less where kept positions lie close together), if there
    is one; of positions whose centres are not ignored."""
    features = patches(network, images, method)
    batch, height, width, channels = features.shape
    rows, vectors = features.reshape(-1, channels), memory["vectors"]
    distances, indices = nearest(rows, vectors, 1, method.recall)
    each, at = distances.reshape(batch, -1), indices.reshape(batch, -1)
    seen = each
    if ignored is not None:
        hidden = jax.image.resize(ignored.astype(jnp.float32), (height, width), "nearest") > 0
        seen = jnp.where(hidden.reshape(1, -1), -jnp.inf, each)
    worst = seen.argmax(1)
    query = features.reshape(batch, -1, channels)[jnp.arange(batch), worst]
    scores, count = each[jnp.arange(batch), worst], min(method.neighbours, len(vectors))
    if count == 1:
        return Found(each.reshape(batch, height, width), scores)
    closest = vectors[at[jnp.arange(batch), worst]]
    near = nearest(closest, vectors, count)[1]
    around = jnp.linalg.norm(query[:, None] - vectors[near], axis=-1)
    weights = 1 - jnp.exp(scores - jax.nn.logsumexp(around, axis=1))
    return Found(each.reshape(batch, height, width), weights * scores)


@functools.partial(jax.jit, static_argnames="method")
def patches(network: Network, images: Array, method: PatchCore) -> Float[Array, "B h w C"]:
    """Features of positions: each stage averaged over 3x3 positions and to `method.channels`."""
    pyramid = activations(network, images)
    height, width = pyramid[method.stages[0]].shape[1:3]
    found = []
    for stage in method.stages:
        # The border is padded with zeros that count, as in the released code.
        local = nn.avg_pool(pyramid[stage], (3, 3), (1, 1), "SAME")
        few = local @ _averaging(local.shape[-1], method.channels)
        shape = (images.shape[0], height, width, method.channels)
        found.append(jax.image.resize(few, shape, "bilinear", antialias=False))
    return jnp.concatenate(found, -1)


def _averaging(channels: int, count: int) -> np.ndarray:
    """Matrix that averages channels to `count` as torch's `adaptive_avg_pool1d`."""
    matrix = np.zeros((channels, count), np.float32)
    for index in range(count):
        first, last = index * channels // count, -(-(index + 1) * channels // count)
        matrix[first:last, index] = 1 / (last - first)
    return matrix


@functools.partial(jax.jit, static_argnames="count")
def coreset(vectors: Float[Array, "N D"], first: Int[Array, ""], count: int) -> Int[Array, " K"]:
    """Greedy choice of vectors: after the `first`, always the one farthest from those chosen."""

    def choose(index: Array, state: tuple[Array, Array]) -> tuple[Array, Array]:
        chosen, distances = state
        newest = vectors[chosen[index - 1]][None]
        distances = jnp.minimum(distances, squared_distances(vectors, newest)[:, 0])
        return chosen.at[index].set(distances.argmax()), distances

    chosen = jnp.zeros(count, jnp.int32).at[0].set(first)
    return lax.fori_loop(1, count, choose, (chosen, jnp.full(len(vectors), jnp.inf)))[0]
