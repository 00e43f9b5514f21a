"""Expected residuals against scikit-learn's regression and the residuals themselves."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.linear_model import Ridge

from pfm_jax.model.folded import anomaly_maps, fold
from pfm_jax.training import expectation
from pfm_jax.training.cache import FeatureCache
from pfm_jax.types import Pair
from tests.small_training import fresh, leaves, make_cache, problem_of
from tests.synthetic import small_config


def test_the_regression_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    x = rng.random((200, 7)) + 3
    y = x @ rng.random(7) + rng.random(200)
    rows = np.concatenate([x, np.ones((200, 1)), y[:, None]], 1)
    found = expectation.ridge_regression(jnp.asarray(rows.T @ rows, jnp.float32))
    reference = Ridge(alpha=expectation.RIDGE * x.var(0).mean() * 200).fit(x, y)
    np.testing.assert_allclose(found.kernel[:, 0], reference.coef_, atol=2e-3)
    ours = x @ np.asarray(found.kernel)[:, 0] + np.asarray(found.bias)
    np.testing.assert_allclose(ours, reference.predict(x), rtol=1e-3)


def test_hidden_values_that_are_all_constant_tell_the_mean() -> None:
    rows = np.array([[2.0, 1, 5], [2, 1, 7]])
    found = expectation.ridge_regression(jnp.asarray(rows.T @ rows, jnp.float32))
    np.testing.assert_allclose([found.kernel[0, 0], found.bias[0]], [0, 6], atol=1e-5)


def unit(rows: np.ndarray) -> jax.Array:
    return jnp.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), jnp.float16)


def two_kinds_of_positions() -> FeatureCache:
    """Every other position has another source, and a target that depends on nothing."""
    rng, rows = np.random.default_rng(0), {}
    for level, pair in make_cache(num_images=8).rows.items():
        source, target = map(np.array, pair)
        source[::2, 0] += 2
        target[::2] = rng.normal(size=target[::2].shape)
        rows[level] = Pair(unit(source), unit(target))
    return FeatureCache(rows, "device")


@pytest.mark.parametrize("how", ["positions", "images"])
def test_residuals_are_on_average_as_expected(how: str) -> None:
    cache, problem = two_kinds_of_positions(), problem_of(small_config(sampling=how))
    state = expectation.with_expected(fresh(problem, num_images=8)[0], cache, problem)
    folded, mapping = fold(state.heads), problem.mapping
    grid = jax.tree.map(lambda f: f.astype(jnp.float32)[None, None], cache.rows)
    plain = anomaly_maps(folded, grid, mapping)
    found = anomaly_maps(folded, grid, mapping, ("conv2_x", "conv3_x"))
    np.testing.assert_array_equal(found["conv4_x"], plain["conv4_x"])

    def gap(maps: jax.Array) -> float:
        logs = jnp.log(maps[0, 0])
        return abs(float(logs[::2].mean() - logs[1::2].mean()))

    for level in ("conv2_x", "conv3_x"):
        assert gap(found[level]) < 0.75 * gap(plain[level])
        # Of the mean of the image, half is expected.
        half = jnp.log(plain[level]).mean() / 2
        np.testing.assert_allclose(jnp.log(found[level]).mean(), half, atol=0.1)


def test_a_cache_on_the_host_gives_what_one_on_the_device_does() -> None:
    problem = problem_of(small_config())
    fitted = [
        expectation.with_expected(fresh(problem)[0], make_cache(place=place), problem)
        for place in ("device", "host")
    ]
    for ours, other in zip(*map(leaves, fitted), strict=True):
        np.testing.assert_allclose(ours, other, rtol=1e-5, atol=1e-6)
    assert all(np.any(h.expected["forward"].kernel) for h in fitted[0].heads.values())
