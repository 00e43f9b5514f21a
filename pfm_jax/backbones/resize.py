"""Bicubic interpolation as torch does it, as a matrix: what position embeddings are resized by."""

from __future__ import annotations

import math

import numpy as np
from jaxtyping import Float

FIXED_SHARPNESS, ANTIALIAS_SHARPNESS = -0.75, -0.5
"""Keys' parameter `a` in torch's `interpolate(mode="bicubic")`, without and with `antialias`."""


def bicubic(
    inputs: int, outputs: int, scale: float | None = None, *, antialias: bool = False
) -> Float[np.ndarray, "outputs inputs"]:
    """Matrix that resizes an axis as torch's `interpolate(mode="bicubic")`, `align_corners=False`.

    `scale` is torch's `scale_factor`, if that was given instead of the size; `outputs / inputs` if
    None. Without `antialias` four taps with repeated edges; with it, as in Pillow, a kernel that
    grows with the reduction and is cut off at the edges.
    """
    step = 1 / scale if scale else inputs / outputs
    matrix = np.zeros((outputs, inputs))
    for row in range(outputs):
        if antialias:
            stretch = max(step, 1.0)
            centre, reach = step * (row + 0.5), 2 * stretch
            first = max(int(centre - reach + 0.5), 0)
            last = min(int(centre + reach + 0.5), inputs)
            taps = np.arange(first, last)
            weights = _keys((taps - centre + 0.5) / stretch, ANTIALIAS_SHARPNESS)
            weights /= weights.sum()
        else:
            centre = step * (row + 0.5) - 0.5
            taps = math.floor(centre) + np.arange(-1, 3)
            weights = _keys(taps - centre, FIXED_SHARPNESS)
        np.add.at(matrix[row], np.clip(taps, 0, inputs - 1), weights)
    return matrix


def _keys(x: np.ndarray, a: float) -> np.ndarray:
    """Cubic convolution kernel (Keys, 1981)."""
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x < 1, near, np.where(x < 2, far, 0.0))
