"""Exact pixel AUROC, F1-max and PRO on an accelerator.

It sorts ten million pixels in milliseconds. Same definitions as `metrics.pixel_metrics`, for shapes
that are known when the program is compiled: pixels are padded to a power of two, so that data sets
of similar size share a program, and points of the curves are masked, not selected. Regions are
labelled on the host.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from pfm_jax import metrics

MOST_PIXELS = 2**27
"""Largest padded size; needs 6 GB of device memory."""
LAST = np.iinfo(np.int32).min  # rank of padding, below that of any score


def pixel_metrics(
    score_maps: np.ndarray,
    masks: metrics.Masks,
    max_fprs: tuple[float, float] = metrics.PRO_LIMITS,
) -> metrics.PixelMetrics:
    """`metrics.pixel_metrics`, on the default device. Raises ValueError, like it."""
    numbers, sizes = metrics.label(masks)
    score_maps, _ = metrics.checked(score_maps, numbers)
    padded = padded_size(numbers.size)
    ranks, sizes_here = np.full(padded, LAST, np.int32), np.zeros(padded, np.int32)
    for own, score_map in zip(_maps(ranks, numbers), score_maps, strict=True):
        own[:] = metrics.ranks(score_map)
    size_of = np.append(0, sizes[1:]).astype(np.int32)
    np.take(size_of, numbers, out=_maps(sizes_here, numbers), mode="clip")
    normal, anomalous = int(sizes[0]), int(sizes[1:].sum())
    limits = normal * np.array(max_fprs)
    with jax.enable_x64(True):
        auroc, f1, *pro = jax.device_get(_areas(ranks, sizes_here, *limits))
    pro = np.array(pro) / (len(sizes) - 1) / limits
    return metrics.PixelMetrics(float(auroc / anomalous / normal), float(f1), *pro.tolist())


def padded_size(pixels: int) -> int:
    """Pixels that a program is compiled for: the next power of two."""
    return 1 << (pixels - 1).bit_length()


def _maps(padded: np.ndarray, like: np.ndarray) -> np.ndarray:
    """The pixels of an array `[P]`, without its padding, in the shape of `like` `[N, H, W]`."""
    return padded[: like.size].reshape(like.shape)


@jax.jit
def _areas(ranks: Array, sizes: Array, *limits: Array) -> tuple[Array, ...]:
    """Area under hits over false alarms, F1-max, and areas of overlaps over false alarms.

    Needs 64-bit types enabled. Counts are exact.

    Args:
        ranks: of the pixels, int32 `[P]`, from `metrics.ranks`; `LAST` for padding.
        sizes: pixels in the region that each pixel is in, int32 `[P]`; 0 outside.
        limits: numbers of false alarms, float64, up to which the areas of overlaps are taken.
    """
    keys, sizes = lax.sort((~ranks, sizes), num_keys=1, is_stable=False)  # highest score first
    index = jnp.arange(len(keys), dtype=jnp.int32)
    alarms = jnp.cumsum(sizes == 0, dtype=jnp.int32)
    hits = index + 1 - alarms
    shares = jnp.where(sizes > 0, 1 / jnp.maximum(sizes, 1).astype(jnp.float64), 0)
    overlaps = jnp.cumsum(shares)

    # A segment of a curve ends with the last pixel of each score and starts at the end before.
    ends = jnp.append(keys[:-1] != keys[1:], True) & (keys != ~LAST)
    reached = lax.cummax(jnp.where(ends, index, -1))
    start = jnp.append(jnp.int32(-1), reached[:-1])
    x0, y0 = (jnp.where(start < 0, 0, values[start]) for values in (alarms, overlaps))
    both_ends = hits + (start + 1 - x0)
    auroc = jnp.sum(jnp.where(ends, alarms - x0, 0).astype(jnp.int64) * both_ends) / 2
    every = hits + alarms + jnp.count_nonzero(sizes)
    f1 = jnp.max(jnp.where(ends, 2 * hits.astype(jnp.float64) / every, 0))

    def area(limit: Array) -> Array:
        width = jnp.minimum(alarms, limit) - jnp.minimum(x0, limit)
        y_mean = y0 + width / jnp.maximum(alarms - x0, 1) * (overlaps - y0) / 2
        return jnp.sum(jnp.where(ends, width * y_mean, 0.0))

    return auroc, f1, *map(area, limits)
