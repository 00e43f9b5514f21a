"""Reconstruction: AE-SSIM (Bergmann et al., 2018) and a VAE, of images of 128 pixels."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jaxtyping import Float, Key
from scipy.ndimage import gaussian_filter1d

from pfm_jax.backbones.networks import Network
from pfm_jax.baselines import learned
from pfm_jax.baselines.features import Found, Memory
from pfm_jax.baselines.student import convolve
from pfm_jax.methods import IMAGES, AeSsim, Vae
from pfm_jax.model.layers import Dense, apply_dense, init_dense, masked_sum
from pfm_jax.types import Batch

SIDE, LEAST_SIDE = 128, 8
"""Sides of what is reconstructed, and of the last map of the encoder."""

WIDTHS = (32, 64, 128, 128)
"""Channels of the encoder, each at half the side of the one before."""

SLOPE = 0.2
"""Of the leaky ReLU below zero."""

SIGMA, CONSTANTS = 1.5, (0.01**2, 0.03**2)
"""Deviation of SSIM's Gaussian in pixels, cut off at 3.5 of it, and its constants."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Autoencoder:
    """Convolutions as products of the pixels under them, and the layers around the latent vector.

    `latent` gives mean and logarithm of the variance in a VAE.
    """

    encoder: tuple[Dense, ...]
    latent: Dense
    spread: Dense
    decoder: tuple[Dense, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Reconstruction:
    """The objective: one minus SSIM, or the squared error and the divergence of a VAE."""

    method: AeSsim | Vae

    def init(self, key: Key[Array, ""]) -> dict[str, Autoencoder]:
        """A fresh autoencoder."""
        keys, flat = jax.random.split(key, 2 * len(WIDTHS) + 2), LEAST_SIDE**2 * WIDTHS[-1]
        down = zip((3, *WIDTHS[:-1]), WIDTHS, strict=True)
        up = zip(WIDTHS[::-1], (*WIDTHS[-2::-1], 3), strict=True)
        encoder, decoder = (
            tuple(init_dense(own, 9 * a, b) for own, (a, b) in zip(some, pairs, strict=True))
            for some, pairs in ((keys[2::2], down), (keys[3::2], up))
        )
        latent = self.method.latent
        outputs = 2 * latent if isinstance(self.method, Vae) else latent
        ends = init_dense(keys[0], flat, outputs), init_dense(keys[1], latent, flat)
        return {IMAGES: Autoencoder(encoder, *ends, decoder)}

    def loss(
        self, params: dict[str, Autoencoder], batch: Batch, key: Key[Array, ""]
    ) -> tuple[Array, Any]:
        """Loss of a batch; see `model.problem.Objective`."""
        images = batch.features[IMAGES].target.reshape(-1, SIDE, SIDE, 3)
        mask = batch.mask[IMAGES]
        found, mean, log_variance = reconstruct(params[IMAGES], images, self.method, key)
        if isinstance(self.method, Vae):
            error = jnp.square(found - images).sum((1, 2, 3))
            each = error + divergence(mean, log_variance)
        else:
            each = 1 - ssim(found, images).mean((1, 2))
        total = masked_sum(mask, each) / mask.sum()
        return total, ({IMAGES: total}, params)


def divergence(mean: Float[Array, "B d"], log_variance: Float[Array, "B d"]) -> Float[Array, " B"]:
    """Kullback-Leibler divergence of Gaussians from the standard one."""
    return (jnp.exp(log_variance) + jnp.square(mean) - 1 - log_variance).sum(1) / 2


def reconstruct(
    own: Autoencoder, images: Float[Array, "B S S 3"], method: AeSsim | Vae, key: Array | None
) -> tuple[Float[Array, "B S S 3"], Array, Array]:
    """Reconstructions of images in [0, 1], and mean and logarithm of the variance of the latent.

    With a `key`, the latent of a VAE is drawn; without one, it is the mean.
    """
    x = images
    for dense in own.encoder:
        x = jax.nn.leaky_relu(_convolved(dense, x, 2), SLOPE)
    mean = apply_dense(own.latent, x.reshape(x.shape[0], -1))
    log_variance = jnp.zeros_like(mean)
    if isinstance(method, Vae):
        mean, log_variance = jnp.split(mean, 2, -1)
    z = mean
    if isinstance(method, Vae) and key is not None:
        z += jnp.exp(log_variance / 2) * jax.random.normal(key, mean.shape)
    x = apply_dense(own.spread, z).reshape(x.shape)
    for dense in own.decoder:
        x = jax.nn.leaky_relu(x, SLOPE).repeat(2, 1).repeat(2, 2)
        x = _convolved(dense, x, 1)
    return jax.nn.sigmoid(x), mean, log_variance


def _convolved(dense: Dense, x: Array, stride: int) -> Array:
    kernel = dense.kernel.reshape(3, 3, x.shape[-1], -1)
    return convolve(x, kernel, stride) + dense.bias.reshape(1, 1, 1, -1)


def ssim(a: Float[Array, "B H W C"], b: Float[Array, "B H W C"]) -> Float[Array, "B H W"]:
    """Structural similarity of images in [0, 1] at each pixel, the mean of the channels.

    As scikit-image's with `gaussian_weights=True, use_sample_covariance=False`.
    """
    rows, columns = (
        jnp.asarray(gaussian_filter1d(np.eye(n), SIGMA, 0, truncate=3.5), jnp.float32)
        for n in a.shape[1:3]
    )

    def smooth(x: Array) -> Array:
        return jnp.einsum("bhwc,ih,jw->bijc", x, rows, columns, precision="highest")

    mean_a, mean_b = smooth(a), smooth(b)
    variances = smooth(a * a) + smooth(b * b) - mean_a**2 - mean_b**2
    covariance = smooth(a * b) - mean_a * mean_b
    first, second = CONSTANTS
    above = (2 * mean_a * mean_b + first) * (2 * covariance + second)
    below = (mean_a**2 + mean_b**2 + first) * (variances + second)
    return (above / below).mean(-1)


def objective(method: AeSsim | Vae, network: str, size: int) -> Reconstruction:
    """The objective, which has no teacher and one size."""
    del network, size
    return Reconstruction(method)


def _small(images: Array) -> Float[Array, "B S S 3"]:
    shape = images.shape[0], SIDE, SIDE, 3
    return jax.image.resize(images.astype(jnp.float32) / 255, shape, "bilinear")


@functools.partial(jax.jit, static_argnames="method")
def targets(network: Network, images: Array, method: AeSsim | Vae) -> Float[Array, "B T"]:
    """The images at the size of the reconstruction, in [0, 1], in a row, as float16."""
    del network, method
    return _small(images).reshape(images.shape[0], -1).astype(jnp.float16)


def maps(
    network: Network,
    memory: Memory,
    images: Array,
    method: AeSsim | Vae,
    _ignored: Array | None = None,
) -> Found:
    """One minus SSIM of image and reconstruction, or their squared distance."""
    del network
    own = learned.restored(Reconstruction(method), memory)[IMAGES]
    small = _small(images)
    found, _, _ = reconstruct(own, small, method, None)
    if isinstance(method, Vae):
        return Found(jnp.square(found - small).sum(-1))
    return Found(1 - ssim(found, small))
