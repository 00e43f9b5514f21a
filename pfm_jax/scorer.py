"""What can score images, be it a detector in memory or an exported one: all that its users need."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from pfm_jax.calibration import Threshold
from pfm_jax.images import BATCH_SIZE

ScoreBatch = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""uint8 RGB `[b, size, size, 3]` -> float32 image scores `[b]`, anomaly maps `[b, size, size]`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Scorer:
    """A detector by what it does.

    Attributes:
        score_batch: see `ScoreBatch`; for the batch sizes that `score` asks for.
        size: the square that images are resized to, in pixels.
        normal_scores: `[n]`, of normal images that were not learned from; may be empty.
        fingerprint: tells it from any other one.
        threshold: its own, if it has one.
    """

    score_batch: ScoreBatch
    size: int
    normal_scores: np.ndarray
    fingerprint: str
    threshold: Threshold | None = None

    def score(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores `[N]` and maps `[N, size, size]` of uint8 RGB `[N, size, size, 3]`.

        Batches are of one image or of `BATCH_SIZE`, the last one padded: two programs in all. A
        score that is not finite is for the caller to refuse; it exceeds no threshold.
        """
        scores, maps = [np.zeros(0, np.float32)], [np.zeros((0, self.size, self.size), np.float32)]
        for start in range(0, len(images), BATCH_SIZE):
            some = images[start : start + BATCH_SIZE]
            missing = 0 if len(some) == 1 else BATCH_SIZE - len(some)
            padded = np.concatenate([some, np.repeat(some[-1:], missing, 0)]) if missing else some
            found = self.score_batch(padded)
            scores.append(found[0][: len(some)])
            maps.append(found[1][: len(some)])
        return np.concatenate(scores), np.concatenate(maps)
