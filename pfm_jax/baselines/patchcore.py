"""PatchCore: nearest neighbours in a coreset of positions (Roth et al., 2022)."""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Key

from pfm_jax.backbones.networks import Network
from pfm_jax.baselines.features import Found, Memory, collected, of_length
from pfm_jax.methods import PatchCore
from pfm_jax.model.features import activations
from pfm_jax.model.nearest import coreset, nearest
from pfm_jax.model.patches import patches
from pfm_jax.types import Example

log = logging.getLogger(__name__)


def fit(
    network: Network, examples: Sequence[Example], size: int, method: PatchCore, key: Key[Array, ""]
) -> Memory:
    """Keeps a coreset of the positions of normal images: `vectors` `[M, C]`."""
    found = collected(lambda images: {"": positions(network, images, method)}, examples, size)
    vectors = found[""].reshape(-1, found[""].shape[-1])
    few, choosing = jax.random.split(key)
    if len(vectors) > method.most_positions:
        log.warning(
            "the coreset is of %d of %d positions, drawn at random (baseline.most_positions)",
            method.most_positions,
            len(vectors),
        )
        every = np.asarray(jax.random.permutation(few, len(vectors)))
        vectors = vectors[np.sort(every[: method.most_positions])]
    count = max(round(method.coreset * len(vectors)), 1)
    chosen = coreset(vectors, choosing, count, method.projection)
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
    features = positions(network, images, method)
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
def positions(network: Network, images: Array, method: PatchCore) -> Float[Array, "B h w C"]:
    """Features of positions; see `patches.patches`."""
    return patches(activations(network, images), method.stages, method.channels)
