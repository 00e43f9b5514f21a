"""What heads are made of: matrix products, torch's initialisation, torch's BatchNorm."""

from __future__ import annotations

from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import Array
from jax.typing import DTypeLike

MOMENTUM = 0.1
EPS = 1e-5
TILES = 8


def exact(mask: Array, x: Array) -> Array:
    """The sum over rows `[P, ...]` that count, in float32 also where products are rounded."""
    return jnp.dot(mask, x, precision="highest")


def operand_dtype(precision: str) -> DTypeLike:
    """That of the operands of products; for `"auto"`, bfloat16 if the device has units for it.

    Accelerators have, and CPUs with AMX (five times float32's rate) or AVX-512's dot products of
    bfloat16 (1.8). Other CPUs are slower at it than at float32.
    """
    if precision != "auto":
        return jnp.dtype(precision)
    info = Path("/proc/cpuinfo")
    on_cpu = jax.default_backend() == "cpu"
    units = info.read_text() if info.is_file() else ""
    fast = not on_cpu or "amx_bf16" in units or "avx512_bf16" in units
    return jnp.dtype(jnp.bfloat16 if fast else jnp.float32)


@jax.custom_vjp
def rounded_product(x: Array, kernel: Array) -> Array:
    """`[P, C]` times `[C, K]`, float32: operands rounded to bfloat16, sums in float32.

    So are the products of its gradient. (Left to itself, JAX would multiply the float32 gradient
    unrounded, at a fraction of the speed.)
    """
    return _forward(x, kernel)[0]


def _times(a: Array, b: Array) -> Array:
    return jnp.dot(a, b, preferred_element_type=jnp.float32)


def _transposed(x: Array) -> Array:
    """The transpose of `[P, C]`, moved in memory: XLA folds a plain one into the product, and its
    CPU back end has no bfloat16 kernel for products whose first operand is not row-major.
    """
    rows, columns = x.shape
    tiles = TILES if rows % TILES == 0 else 1
    return x.reshape(tiles, rows // tiles, columns).transpose(2, 0, 1).reshape(columns, rows)


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    rounded = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    return _times(*rounded), rounded


def _backward(rounded: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = rounded
    g = gradient.astype(jnp.bfloat16)
    return _times(g, kernel.T), _times(_transposed(x), g)


rounded_product.defvjp(_forward, _backward)


def product(x: Array, kernel: Array, dtype: DTypeLike) -> Array:
    """`[P, C]` times `[C, K]`, float32; see `rounded_product` for bfloat16."""
    return jnp.dot(x, kernel) if dtype == jnp.float32 else rounded_product(x, kernel)


class Linear(nn.Module):
    """A 1x1 convolution, initialised as torch's Conv2d: all uniform within 1/sqrt(inputs).

    Attributes:
        features: channels that come out.
        dtype: of the operands of the product, float32 or bfloat16.
    """

    features: int
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """[..., C] -> [..., features], float32."""
        inputs, bound = x.shape[-1], x.shape[-1] ** -0.5

        def uniform(key: Array, shape: tuple[int, ...]) -> Array:
            return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

        kernel = self.param("kernel", uniform, (inputs, self.features))
        bias = self.param("bias", uniform, (self.features,))
        y = product(x.reshape(-1, inputs), kernel, self.dtype)
        return y.reshape(*x.shape[:-1], self.features) + bias.reshape((1,) * (x.ndim - 1) + (-1,))


class BatchNorm(nn.Module):
    """torch's BatchNorm over rows; `nn.BatchNorm` keeps the biased variance, torch the unbiased."""

    @nn.compact
    def __call__(self, x: Array, mask: Array | None) -> Array:
        """[..., C] -> [..., C]; of `[P, C]` with a mask `[P]`: in training mode."""
        features = (x.shape[-1],)
        scale = self.param("scale", nn.initializers.ones, features)
        bias = self.param("bias", nn.initializers.zeros, features)
        running_mean = self.variable("batch_stats", "mean", jnp.zeros, features)
        running_var = self.variable("batch_stats", "var", jnp.ones, features)
        mean, var = running_mean.value, running_var.value
        if mask is not None:
            count = mask.sum()
            mean = exact(mask, x) / count
            var = exact(mask, jnp.square(x - mean[None])) / count
            if not self.is_initializing():
                unbiased = var * count / jnp.maximum(count - 1, 1)
                running_mean.value += MOMENTUM * (mean - running_mean.value)
                running_var.value += MOMENTUM * (unbiased - running_var.value)
        gain = scale / jnp.sqrt(var + EPS)
        shape = (1,) * (x.ndim - 1) + features
        return x * gain.reshape(shape) + (bias - mean * gain).reshape(shape)


class Layers(nn.Module):
    """Linear layers, each but an unnormalised last one followed by BatchNorm and ReLU."""

    widths: tuple[int, ...]
    last_is_linear: bool
    dtype: DTypeLike

    @nn.compact
    def __call__(self, x: Array, mask: Array | None) -> Array:
        """[..., C] -> [..., widths[-1]]; see `BatchNorm` for the mask."""
        for index, width in enumerate(self.widths):
            x = Linear(width, self.dtype, name=f"linear_{index}")(x)
            if not (self.last_is_linear and index == len(self.widths) - 1):
                x = nn.relu(BatchNorm(name=f"norm_{index}")(x, mask))
        return x
