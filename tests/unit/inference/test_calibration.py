"""Thresholds and p-values against simulation, brute force and counting."""

from __future__ import annotations

import numpy as np
import pytest

from pfm_jax.inference import calibration
from pfm_jax.types import InputError


@pytest.mark.parametrize(("n", "rate"), [(19, 0.05), (32, 0.05), (64, 0.05), (64, 0.1), (99, 0.01)])
def test_rate_is_kept_and_the_bound_holds(n: int, rate: float) -> None:
    """Scores of any distribution, drawn many times: the true rate beyond each threshold is known,
    because the scores are the quantiles of a uniform one.
    """
    rng, draws = np.random.default_rng(0), 4000
    found = [calibration.threshold(rng.uniform(size=n), rate) for _ in range(draws)]
    rates = 1 - np.array([threshold.value for threshold in found])
    assert rates.mean() <= rate + 3 * rates.std() / draws**0.5
    assert rates.mean() > rate - 1 / (n + 1), "no higher than it need be"
    assert abs((rates <= found[0].bound).mean() - 0.95) < 3 * (0.95 * 0.05 / draws) ** 0.5
    assert found[0].num_images == n


@pytest.mark.parametrize("rate", [0.5, 0.1, 0.05, 0.01, 1 / 3])
def test_too_few_images_are_an_error_that_says_how_many_it_takes(rate: float) -> None:
    needed = calibration.images_needed(rate)
    assert (needed + 1) * rate >= 1 - 1e-9 > needed * rate
    scores = np.arange(needed, dtype=np.float32)
    assert calibration.threshold(scores, rate).value == needed - 1, "the highest of them all"
    with pytest.raises(InputError, match=f"needs {needed} normal images.* there are {needed - 1}"):
        calibration.threshold(scores[1:], rate)


@pytest.mark.parametrize("rate", [0.0, 1.0, -0.1, 2.0, float("nan")])
def test_impossible_rates(rate: float) -> None:
    with pytest.raises(InputError, match="false_positive_rate"):
        calibration.threshold(np.arange(100.0), rate)


def test_p_values_count() -> None:
    rng = np.random.default_rng(1)
    normal, scores = rng.integers(0, 30, 50).astype(float), rng.integers(-2, 33, 200).astype(float)
    found = calibration.p_values(scores, normal)
    expected = [(1 + sum(n >= s for n in normal)) / 51 for s in scores]
    np.testing.assert_allclose(found, expected)
    assert np.isnan(calibration.p_values(scores, np.zeros(0))).all()


@pytest.mark.parametrize("rate", [0.02, 0.05, 0.31])
def test_decisions_and_p_values_agree(rate: float) -> None:
    rng = np.random.default_rng(2)
    normal, scores = rng.normal(size=77), rng.normal(size=500) + 1
    scores = np.concatenate([scores, normal])
    threshold = calibration.threshold(normal, rate)
    over = scores > threshold.value
    np.testing.assert_array_equal(over, calibration.p_values(scores, normal) <= rate)


def test_threshold_tells_what_it_is() -> None:
    told = str(calibration.threshold(np.arange(64.0), 0.05))
    assert "5.00%" in told and "64 held-out" in told and "61" in told
    assert str(calibration.Threshold(0.25)) == "threshold 0.25, as given"
