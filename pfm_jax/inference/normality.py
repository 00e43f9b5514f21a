"""Normality: per-position mean and deviation of anomaly maps on normal images."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from pfm_jax.config import Config
from pfm_jax.inference.detector import Detector
from pfm_jax.model import scoring
from pfm_jax.system import devices
from pfm_jax.types import Example, InputError, Normality

LEAST_WEIGHT = 1e-6
"""Floor for the share of a position's neighbours that are not ignored."""

LEAST_IMAGES, MOST_IMAGES = 16, 256
"""Fewest training images required; most images used, evenly spread."""

SMOOTHING = 1 / 32
"""Smoothing of mean and deviation, as `ScoringConfig.smoothing` of maps."""

DEVIATION_FLOOR, MEAN_FLOOR = 0.1, 1e-3
"""Least deviation, as fractions of the average deviation and of the average mean: where images are
alike, nothing is divided by less."""


def check(config: Config, num_images: int, where: str = "") -> None:
    """Raises InputError, which begins with `where`: too few images to estimate a deviation."""
    if config.scoring.standardize and num_images < LEAST_IMAGES:
        needed = f"needs {LEAST_IMAGES} training images, there are {num_images}"
        raise InputError(f"{where}config.scoring.standardize=True {needed}")


def with_normality(detector: Detector, train: Sequence[Example]) -> Detector:
    """Measures the normality of a detector, if its recipe asks for it.

    Uses training images. Held-out images must not contribute to what standardises them, or their
    threshold would not hold for new images. Raises InputError: see `check`, or unreadable images.
    """
    if not detector.config.scoring.standardize:
        return detector
    check(detector.config, len(train))
    plane: Any = np.zeros((detector.config.data.image_size,) * 2, np.float32)
    # The identity, for now: one program measures and later scores.
    identity = devices.replicate(Normality(plane, plane + 1))
    chosen = np.linspace(0, len(train) - 1, min(len(train), MOST_IMAGES)).round().astype(int)
    some = [train[int(index)] for index in chosen]
    mean, deviation = _moments(dataclasses.replace(detector, normality=identity), some)
    floors = DEVIATION_FLOOR * deviation.mean(), MEAN_FLOOR * np.abs(mean).mean()
    floor = max(*floors, scoring.LEAST_MEAN)
    normality = Normality(mean, np.maximum(deviation, floor))  # type: ignore[arg-type]
    return dataclasses.replace(detector, normality=devices.replicate(normality))


def _moments(detector: Detector, examples: Sequence[Example]) -> tuple[np.ndarray, np.ndarray]:
    """Smoothed mean and deviation of the fused maps at each position."""
    total = squares = np.zeros(1)
    for found in detector.stream(examples, "normality"):
        maps = np.asarray(found.fused, np.float64)
        total, squares = total + maps.sum(0), squares + (maps**2).sum(0)
    mean = total / len(examples)
    deviation = np.sqrt(np.maximum(squares / len(examples) - mean**2, 0))
    kept: Any = np.ones_like(mean)
    if detector.ignored is not None:  # its pixels, all 0, are no part of what is smoothed
        kept = 1.0 - np.asarray(detector.ignored)
    smoothed = scoring.smooth(
        jnp.asarray(np.stack([mean * kept, deviation * kept, kept]), jnp.float32), SMOOTHING
    )
    mean, deviation, weight = np.asarray(smoothed)
    weight = np.maximum(weight, LEAST_WEIGHT)
    return mean / weight, deviation / weight
