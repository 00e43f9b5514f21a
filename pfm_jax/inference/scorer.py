"""Scoring as a function: all that batch prediction and the service need of a detector."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

from pfm_jax.inference.calibration import Threshold
from pfm_jax.inference.streaming import pad, stream
from pfm_jax.system import devices

T = TypeVar("T")

ScoreBatch = Callable[[Any], tuple[Any, Any]]
"""uint8 RGB `[B, size, size, 3]` -> float32 image scores `[B]`, anomaly maps `[B, size, size]`."""


@dataclasses.dataclass(frozen=True, slots=True)
class Scorer:
    """A detector in memory or an exported one, as a function.

    Attributes:
        size: side of the square that images are resized to, in pixels.
        normal_scores: `[n]`, of held-out normal images; may be empty.
        fingerprint: () -> a text that identifies the detector, made when it is asked for.
        threshold: its own, if it has one.
        value_range: of grey images of more than 8 bits; see `decoding.decode`.
    """

    score_batch: ScoreBatch
    size: int
    normal_scores: np.ndarray
    fingerprint: Callable[[], str]
    threshold: Threshold | None = None
    value_range: float = 0.0

    def stream(
        self, batches: Iterable[tuple[np.ndarray, T]]
    ) -> Iterator[tuple[np.ndarray, np.ndarray, T]]:
        """Scores batches in order, on all devices; see `streaming.stream`.

        Takes uint8 RGB `[b, size, size, 3]`, b from 0 to `devices.batch_size`, and anything that
        goes with it; yields image scores `[b]`, anomaly maps `[b, size, size]`, and that thing. A
        score that is not finite is for the caller to refuse; it exceeds no threshold.
        """
        padded = ((*pad(images), item) for images, item in batches)
        for (scores, maps), item in stream(self.score_batch, padded):
            yield scores, maps, item

    def score(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Scores `[N]` and maps `[N, size, size]` of uint8 RGB `[N, size, size, 3]`."""
        most = devices.batch_size()
        starts = range(0, max(len(images), 1), most)
        found = self.stream((images[start : start + most], None) for start in starts)
        scores, maps, _ = zip(*found, strict=True)
        return np.concatenate(scores), np.concatenate(maps)
