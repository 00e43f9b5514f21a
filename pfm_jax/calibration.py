"""Scores of normal images -> a threshold with a guaranteed rate of false alarms, and p-values.

Split conformal prediction: if the held-out normal images and a new normal image are exchangeable
(drawn alike, in any order), the rank of the new one's score among them is uniform. No anomalous
image is needed, and nothing is assumed of how scores are distributed. (Vovk et al., 2005;
Bates et al., 2023, "Testing for outliers with conformal p-values".)
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from scipy import stats

from pfm_jax.types import InputError


@dataclasses.dataclass(frozen=True, slots=True)
class Threshold:
    """Where the line is, and how far it can be trusted.

    Attributes:
        value: an image is anomalous if its score is greater.
        false_positive_rate: that was asked for: a new normal image exceeds the threshold with no
            greater probability, over the draw of the held-out images and of the image. None if
            the threshold was given.
        bound: the rate that this very threshold keeps below, with 95% confidence: which images
            were held out is luck, and the fewer there were the more.
        num_images: held-out normal images that it follows from.
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
    """The fewest held-out normal images that can promise the rate."""
    return math.ceil(1 / false_positive_rate - 1 - 1e-9)


def threshold(normal_scores: np.ndarray, false_positive_rate: float) -> Threshold:
    """The lowest threshold that keeps the rate.

    Args:
        normal_scores: `[n]`, of images that the heads did not learn from.
        false_positive_rate: above 0 and below 1.

    Raises:
        InputError: too few images for the rate; says how many are needed.
    """
    if not 0 < false_positive_rate < 1:
        raise InputError(f"false_positive_rate={false_positive_rate}: must be above 0 and below 1")
    n, needed = len(normal_scores), images_needed(false_positive_rate)
    if n < needed:
        raise InputError(
            f"false_positive_rate={false_positive_rate:g} needs {needed} normal images that were "
            f"held out, there are {n}: give a folder of others, or ask for a rate of "
            f"{math.ceil(1000 / (n + 1)) / 1000:g} or more"
        )
    above = math.floor((n + 1) * false_positive_rate + 1e-9)
    value = np.partition(normal_scores, n - above)[n - above]
    # The rate beyond the k-th smallest of n is distributed as Beta(n + 1 - k, k); `above` is n+1-k.
    bound = stats.beta.ppf(0.95, above, n + 1 - above)
    return Threshold(float(value), false_positive_rate, float(bound), n)


def p_values(scores: np.ndarray, normal_scores: np.ndarray) -> np.ndarray:
    """`[N]`: how often a normal image scores as high or higher, counting the image itself.

    At most `false_positive_rate` exactly where the score exceeds the `threshold` of that rate, if
    no held-out scores are tied. NaN without held-out images.
    """
    n = len(normal_scores)
    if not n:
        return np.full(len(scores), np.nan)
    at_least = n - np.searchsorted(np.sort(normal_scores), scores, side="left")
    return (1 + at_least) / (n + 1)
