"""CNN feature dictionary: distance of patches to words (Napoletano et al., 2018)."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Key

from pfm_jax.backbones.networks import Network
from pfm_jax.baselines.features import Found, Memory, collected
from pfm_jax.methods import CnnDict
from pfm_jax.model.features import activations
from pfm_jax.model.nearest import nearest
from pfm_jax.types import Example

MOST_PATCHES = 50_000
"""Patches, drawn at random, that the dictionary is learnt from, at most."""


def fit(
    network: Network, examples: Sequence[Example], size: int, method: CnnDict, key: Key[Array, ""]
) -> Memory:
    """Keeps the principal `components` `[d, C]` of patches, their `mean` `[C]`, and the `words`
    `[M, d]` of their dictionary."""
    from sklearn.cluster import KMeans  # half a second, which scoring need not wait for
    from sklearn.decomposition import PCA

    found = collected(lambda images: {"": patches(network, images, method)}, examples, size)[""]
    rows = found.reshape(-1, found.shape[-1])
    order, seed = jax.random.split(key)
    rows = rows[np.asarray(jax.random.permutation(order, len(rows)))[:MOST_PATCHES]]
    variance = method.variance if method.variance < 1 else None
    basis = PCA(variance, svd_solver="full").fit(rows)
    state = int(jax.random.randint(seed, (), 0, 2**31 - 1))
    words = min(method.words, len(rows))
    centres = KMeans(words, random_state=state).fit(basis.transform(rows)).cluster_centers_
    kept = {"mean": basis.mean_, "components": basis.components_, "words": centres}
    return {name: jnp.asarray(array, jnp.float32) for name, array in kept.items()}


def maps(
    network: Network, memory: Memory, images: Array, method: CnnDict, _ignored: Array | None = None
) -> Found:
    """Mean distance of each patch to the nearest words."""
    features = patches(network, images, method)
    rows = features.reshape(-1, features.shape[-1]) - memory["mean"][None]
    reduced = jnp.dot(rows, memory["components"].T, precision="highest")
    count = min(method.neighbours, len(memory["words"]))
    distances, _ = nearest(reduced, memory["words"], count)
    return Found(distances.mean(1).reshape(features.shape[:3]))


@functools.partial(jax.jit, static_argnames="method")
def patches(network: Network, images: Array, method: CnnDict) -> Float[Array, "B h w C"]:
    """Features of the patches around the centres of squares of `method.stride` pixels; what lies
    outside an image mirrors it."""
    batch, size = images.shape[:2]
    before = (method.patch - method.stride) // 2
    after = method.patch - method.stride - before
    padded = jnp.pad(images, ((0, 0), *((before, after),) * 2, (0, 0)), "symmetric")
    count = size // method.stride
    at = method.stride * np.arange(count)[:, None] + np.arange(method.patch)[None]
    cut = padded[:, at][:, :, :, at]  # [B, rows, patch, columns, patch, 3]
    own = cut.transpose(0, 1, 3, 2, 4, 5).reshape(-1, method.patch, method.patch, 3)
    features = activations(network, own)[method.stages[0]].mean((1, 2))
    return features.reshape(batch, count, count, -1)
