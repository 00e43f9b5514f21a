"""Convolutions in the form that is fastest on a CPU: 1x1 and depthwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax import Array, lax


def convolution(
    x: Array, kernel: Array, strides: Sequence[int], padding: Any, **options: Any
) -> Array:
    """Replacement for `lax.conv_general_dilated` on `[B, H, W, C]` in `nn.Conv`.

    A 1x1 kernel becomes a matrix product over positions: up to six times faster on the CPU
    backend, equal elsewhere.
    """
    if kernel.shape[:2] != (1, 1):
        return lax.conv_general_dilated(x, kernel, strides, padding, **options)
    x = x[:, :: strides[0], :: strides[1]]
    rows = jnp.dot(x.reshape(-1, x.shape[-1]), kernel.reshape(kernel.shape[2:]))
    return rows.reshape(*x.shape[:-1], -1)


class DepthwiseConv(nn.Module):
    """Depthwise convolution as a sum of shifted products, with the parameters of `nn.Conv`.

    Twenty times faster than a grouped convolution on XLA's CPU backend, equal elsewhere.
    """

    kernel: int
    stride: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Applies the convolution: `[B, H, W, C]` -> `[B, H/stride, W/stride, C]`."""
        k, s, channels = self.kernel, self.stride, x.shape[-1]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (k, k, 1, channels))
        y = self.param("bias", nn.initializers.zeros, (channels,)).reshape(1, 1, 1, channels)
        pads = lax.padtype_to_pads(x.shape[1:3], (k, k), (s, s), "SAME")
        height, width = -(-x.shape[1] // s), -(-x.shape[2] // s)
        # Without the barrier XLA recomputes the padding for each of the k * k shifts.
        x = lax.optimization_barrier(jnp.pad(x, ((0, 0), *pads, (0, 0))))
        for i in range(k):
            for j in range(k):
                window = x[:, i : i + s * (height - 1) + 1 : s, j : j + s * (width - 1) + 1 : s]
                y = y + window * kernel[i, j].reshape(1, 1, 1, channels)
        return y
