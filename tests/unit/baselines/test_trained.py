"""Losses and scores of the methods that are trained, against their definitions."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from pfm_jax.baselines import autoencoder, uninformed
from pfm_jax.baselines.autoencoder import Reconstruction
from pfm_jax.methods import IMAGES, AeSsim, Uninformed, Vae
from pfm_jax.types import Batch, Pair

GOLDEN = np.load(Path(__file__).parents[2] / "parity" / "goldens" / "ssim.npz")
KEY = jax.random.key(0)


def test_ssim_is_scikit_images() -> None:
    a, b = (jnp.asarray(GOLDEN[name])[None] for name in "ab")
    np.testing.assert_allclose(autoencoder.ssim(a, b)[0], GOLDEN["ssim"], atol=2e-5)
    np.testing.assert_allclose(autoencoder.ssim(a, a), 1, atol=1e-5)


def test_the_divergence_is_an_integral() -> None:
    mean, log_variance = jnp.array([[0.3, -1.2]]), jnp.array([[-0.7, 0.4]])

    def one(m: float, s: float) -> float:
        own = stats.norm(m, s)
        ratio = lambda x: own.pdf(x) * (own.logpdf(x) - stats.norm.logpdf(x))  # noqa: E731
        return float(integrate.quad(ratio, m - 12 * s, m + 12 * s)[0])

    expected = sum(map(one, np.ravel(mean), np.ravel(np.exp(log_variance / 2))))
    np.testing.assert_allclose(autoencoder.divergence(mean, log_variance), [expected], rtol=1e-5)


def batch(images: jax.Array, mask: list[float]) -> Batch:
    rows = Pair(jnp.zeros((len(images), 1)), images.reshape(len(images), -1))
    return Batch({IMAGES: rows}, {IMAGES: jnp.array(mask, jnp.float32)})


@pytest.mark.parametrize("method", [AeSsim(latent=6), Vae(latent=6)])
def test_padding_does_not_count_and_steps_reduce_the_loss(method: AeSsim | Vae) -> None:
    own, side = Reconstruction(method), autoencoder.SIDE
    images = jax.random.uniform(KEY, (3, side, side, 3))
    params = own.init(KEY)

    def loss(params: object, given: Batch) -> jax.Array:
        return own.loss(params, given, KEY)[0]  # type: ignore[arg-type]

    first, gradient = jax.value_and_grad(loss)(params, batch(images, [1, 1, 0]))
    other = images.at[2].set(0.5)
    np.testing.assert_allclose(loss(params, batch(other, [1, 1, 0])), first, rtol=1e-6)
    norm = jnp.sqrt(sum(jnp.vdot(g, g) for g in jax.tree.leaves(gradient)))
    scale = 1e-4 * jnp.abs(first) / norm**2
    moved = jax.tree.map(lambda p, g: p - scale * g, params, gradient)
    assert loss(moved, batch(images, [1, 1, 0])) < first


def test_a_vae_draws_in_training_and_not_in_scoring() -> None:
    own, side = Reconstruction(Vae(latent=6)), autoencoder.SIDE
    params, images = own.init(KEY)[IMAGES], jax.random.uniform(KEY, (1, side, side, 3))
    one, two, mean = (
        autoencoder.reconstruct(params, images, own.method, key)[0]
        for key in (KEY, jax.random.key(1), None)
    )
    assert not np.allclose(one, two, atol=1e-4)
    again = autoencoder.reconstruct(params, images, own.method, None)[0]
    np.testing.assert_array_equal(mean, again)


def test_error_and_variance_are_those_of_an_ensemble() -> None:
    rng = np.random.default_rng(0)
    predictions, targets = rng.normal(size=(4, 7, 5)), rng.normal(size=(7, 5))
    found = uninformed.error_and_variance(
        jnp.asarray(predictions, jnp.float32), jnp.asarray(targets, jnp.float32)
    )
    error = np.square(predictions.mean(0) - targets).sum(-1)
    variance = predictions.var(0).sum(-1)
    np.testing.assert_allclose(found, np.stack([error, variance], -1), rtol=1e-5)


def test_students_learn_standardised_descriptors_and_score_by_their_statistics() -> None:
    """After many steps on one batch the statistics are the batch's, and scores standardised."""
    own = uninformed.objective(Uninformed(stages=("conv2_x",), students=2), "resnet18", 32)
    pixels = 255 * jax.random.uniform(KEY, (2, 32 * 32 * 3))
    flat = 3 + 2 * jax.random.normal(KEY, (2, 8 * 8 * 64))
    given = Batch({IMAGES: Pair(pixels, flat)}, {IMAGES: jnp.ones(2)})
    params, step = own.init(KEY), jax.jit(own.loss)
    for _ in range(150):
        _, (losses, params) = step(params, given, KEY)
    held = params[IMAGES]
    rows = flat.reshape(-1, 64)
    np.testing.assert_allclose(held.descriptors.mean, rows.mean(0), rtol=1e-3)
    np.testing.assert_allclose(held.descriptors.var, rows.var(0, ddof=1), rtol=1e-3)
    # Students that predict nothing yet are off by the variance of standardised channels, and more.
    assert losses[IMAGES] > 2 * 0.9
    scores = own.scores(held, pixels.reshape(2, 32, 32, 3), flat)
    np.testing.assert_allclose(np.mean(scores), 0, atol=0.1)
