"""Conformal calibration: thresholds with a guaranteed false-positive rate, and p-values.

Split conformal prediction: if the held-out normal images and a new normal image are exchangeable
(their order carries no information), the rank of the new one's score among them is uniform. No
anomalous images and no assumption about the score distribution are needed. (Vovk et al., 2005;
Bates et al., 2023, "Testing for outliers with conformal p-values".)
"""

from __future__ import annotations

import dataclasses
import logging
import math

import numpy as np
from scipy import stats

from pfm_jax.types import InputError

DEFAULT_RATE = 0.05
"""False-positive rate of thresholds, unless another is asked for."""


log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Threshold:
    """Decision threshold with its statistical guarantees.

    Attributes:
        value: score above which an image is anomalous.
        false_positive_rate: requested upper bound on the probability that a new normal image
            exceeds the threshold, over the draw of the held-out images and of the image. None if
            the threshold was given.
        bound: 95% upper confidence bound on the false-positive rate of this particular threshold,
            given the random choice of held-out images; looser for fewer images.
        num_images: held-out normal images used for calibration.
    """

    value: float
    false_positive_rate: float | None = None
    bound: float | None = None
    num_images: int = 0

    def __str__(self) -> str:
        if self.false_positive_rate is None or self.bound is None:
            return f"threshold {self.value:.6g}, as given"
        return (
            f"threshold {self.value:.6g}: at most {self.false_positive_rate:.2%} false alarms "
            f"expected, below {self.bound:.1%} with 95% confidence ({self.num_images} held-out "
            "normal images)"
        )


def images_needed(false_positive_rate: float) -> int:
    """Minimum number of held-out normal images that can guarantee the rate."""
    return math.ceil(1 / false_positive_rate - 1 - 1e-9)


def threshold(normal_scores: np.ndarray, false_positive_rate: float) -> Threshold:
    """Lowest threshold that guarantees the rate.

    `normal_scores` `[n]` are of normal images that the heads were not trained on. Raises
    InputError: a rate outside (0, 1), or too few images for it; states how many are needed.
    """
    if not 0 < false_positive_rate < 1:
        raise InputError(f"false_positive_rate={false_positive_rate}: must be above 0 and below 1")
    n = len(normal_scores)
    if n < images_needed(false_positive_rate):
        raise InputError(too_few(n, false_positive_rate))
    above = math.floor((n + 1) * false_positive_rate + 1e-9)
    value = np.partition(normal_scores, n - above)[n - above]
    # The rate above the k-th smallest of n follows Beta(n + 1 - k, k); `above` is n + 1 - k.
    bound = stats.beta.ppf(0.95, above, n + 1 - above)
    return Threshold(float(value), false_positive_rate, float(bound), n)


def too_few(n: int, false_positive_rate: float) -> str:
    """Sentence for `n` held-out images that are too few for a rate; names what else can be had."""
    rate = math.ceil(1000 / (n + 1)) / 1000
    reachable = f", or ask for a rate of {rate:g} or more" if n else ""
    return (
        f"false_positive_rate={false_positive_rate:g} needs {images_needed(false_positive_rate)} "
        f"normal images that were held out, there are {n}: give a folder of others{reachable}"
    )


def default_threshold(normal_scores: np.ndarray) -> Threshold | None:
    """The threshold of `DEFAULT_RATE`; None, with a warning, if there are too few images for it."""
    if (n := len(normal_scores)) >= images_needed(DEFAULT_RATE):
        return threshold(normal_scores, DEFAULT_RATE)
    log.warning("no threshold, and so no decisions: %s", too_few(n, DEFAULT_RATE))
    return None


def p_values(scores: np.ndarray, normal_scores: np.ndarray) -> np.ndarray:
    """Conformal p-values `[N]`: fraction of held-out and new scores at least as high.

    A p-value is at most `false_positive_rate` exactly where the score exceeds the `threshold` of
    that rate. NaN without held-out images.
    """
    n = len(normal_scores)
    if not n:
        return np.full(len(scores), np.nan)
    at_least = n - np.searchsorted(np.sort(normal_scores), scores, side="left")
    return (1 + at_least) / (n + 1)
