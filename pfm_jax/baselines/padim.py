"""PaDiM: a Gaussian of the features at each position (Defard et al., 2021)."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Key

from pfm_jax.backbones.networks import Network
from pfm_jax.baselines.features import Found, Memory, collected, repeated
from pfm_jax.methods import Padim
from pfm_jax.model.features import activations
from pfm_jax.types import Example


def fit(
    network: Network, examples: Sequence[Example], size: int, method: Padim, key: Key[Array, ""]
) -> Memory:
    """Keeps `channels` `[d]`, those drawn; the `mean` `[h, w, d]` of their features at each
    position, and the `whitening` `[h, w, d, d]`, the inverse Cholesky factor of their covariance.
    """
    image = jax.ShapeDtypeStruct((1, size, size, 3), np.uint8)
    pyramid = jax.eval_shape(activations, network, image)
    width = sum(pyramid[stage].shape[-1] for stage in method.stages)
    drawn = jnp.sort(jax.random.permutation(key, width)[: method.channels])
    found = collected(lambda x: {"": _drawn(network, x, drawn, method)}, examples, size)[""]
    # Row by row of the grid, which copies little.
    rows = [gaussians(found[:, row].swapaxes(0, 1), method.ridge) for row in range(found.shape[1])]
    mean, whitening = (jnp.stack(own) for own in zip(*rows, strict=True))
    return {"channels": drawn, "mean": mean, "whitening": whitening}


def maps(
    network: Network, memory: Memory, images: Array, method: Padim, _ignored: Array | None = None
) -> Found:
    """Mahalanobis distance of each position's features."""
    features = _drawn(network, images, memory["channels"], method)
    centred = features - memory["mean"][None]
    white = jnp.einsum("hwij,bhwj->bhwi", memory["whitening"], centred, precision="highest")
    return Found(jnp.linalg.norm(white, axis=-1))


@functools.partial(jax.jit, static_argnames="method")
def _drawn(
    network: Network, images: Array, channels: Array, method: Padim
) -> Float[Array, "B h w d"]:
    return repeated(activations(network, images), method.stages)[..., channels]


def gaussians(rows: np.ndarray, ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Means `[P, d]` of rows `[P, N, d]`, and inverse Cholesky factors `[P, d, d]` of covariances.

    `ridge` is added to the covariances' diagonals.
    """
    exact = rows.astype(np.float64)
    mean = exact.mean(1)
    centred = exact - mean[:, None]
    covariance = centred.swapaxes(1, 2) @ centred / max(rows.shape[1] - 1, 1)
    covariance += ridge * np.eye(rows.shape[-1])
    factors = np.linalg.inv(np.linalg.cholesky(covariance))
    return mean.astype(np.float32), factors.astype(np.float32)
