"""Layers of the heads: matrix products, torch's initialisation, torch's BatchNorm."""

import dataclasses

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.typing import DTypeLike
from jaxtyping import Float, Key

MOMENTUM = 0.1
"""Weight of the newest batch in the running statistics, as in torch."""

EPS = 1e-5
"""Added to the variance, as in torch."""

ROW_BLOCKS = 8
"""Blocks that `_transposed` moves rows in."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Dense:
    """A 1x1 convolution: kernel `[C, K]` and bias `[K]`."""

    kernel: Array
    bias: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Norm:
    """BatchNorm over rows; all `[C]`. Scale and bias are learned, mean and variance are running
    statistics (the variance unbiased, as in torch).
    """

    scale: Array
    bias: Array
    mean: Array
    var: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Layer:
    """A 1x1 convolution, with BatchNorm and ReLU after it where `norm` is given."""

    dense: Dense
    norm: Norm | None


def init_dense(key: Key[Array, ""], inputs: int, outputs: int) -> Dense:
    """Initialises kernel and bias as torch's Conv2d: uniform within 1/sqrt(inputs)."""
    bound, keys = inputs**-0.5, jax.random.split(key)
    kernel, bias = (
        jax.random.uniform(own, shape, minval=-bound, maxval=bound)
        for own, shape in zip(keys, ((inputs, outputs), (outputs,)), strict=True)
    )
    return Dense(kernel, bias)


def init_norm(channels: int) -> Norm:
    """A fresh BatchNorm, which changes nothing."""
    zeros, ones = jnp.zeros(channels), jnp.ones(channels)
    return Norm(ones, zeros, zeros, ones)


def init_layer(key: Key[Array, ""], inputs: int, outputs: int, *, norm: bool = True) -> Layer:
    """A fresh layer; see `init_dense`."""
    return Layer(init_dense(key, inputs, outputs), init_norm(outputs) if norm else None)


def masked_sum(mask: Float[Array, " P"], x: Float[Array, " P *C"]) -> Float[Array, " *C"]:
    """Sums the rows that count, in float32 even where products are rounded.

    A product on a CPU; elsewhere a reduction, which fuses with what makes `x`, and is not tuned as
    each product of another shape is.
    """

    def product(mask: Array, x: Array) -> Array:
        return jnp.dot(mask, x, precision="highest")

    def reduction(mask: Array, x: Array) -> Array:
        return jnp.sum(mask.reshape(-1, *(1,) * (x.ndim - 1)) * x, 0)

    found: Array = lax.platform_dependent(mask, x, cpu=product, default=reduction)
    return found


@jax.custom_vjp
def rounded_product(x: Float[Array, "P C"], kernel: Float[Array, "C K"]) -> Float[Array, "P K"]:
    """Multiplies operands rounded to bfloat16, summing in float32, in its gradient too.

    (Left to itself, JAX would multiply the float32 gradient unrounded, at a fraction of the speed.)
    """
    return _forward(x, kernel)[0]


def _times(a: Array, b: Array) -> Array:
    return jnp.dot(a, b, preferred_element_type=jnp.float32)


def _transposed(x: Array) -> Array:
    """Transposes `[P, C]`. In memory on a CPU, whose back end in XLA has no bfloat16 kernel for
    products with a first operand that is not row-major, though a plain transpose becomes just that.
    """

    def in_memory(x: Array) -> Array:
        rows, columns = x.shape
        blocks = ROW_BLOCKS if rows % ROW_BLOCKS == 0 else 1
        return x.reshape(blocks, rows // blocks, columns).transpose(2, 0, 1).reshape(columns, rows)

    transposed: Array = lax.platform_dependent(x, cpu=in_memory, default=jnp.transpose)
    return transposed


def _forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    rounded = x.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    return _times(*rounded), rounded


def _backward(rounded: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    x, kernel = rounded
    g = gradient.astype(jnp.bfloat16)
    return _times(g, kernel.T), _times(_transposed(x), g)


rounded_product.defvjp(_forward, _backward)


def apply_dense(
    dense: Dense, x: Float[Array, "*batch C"], dtype: DTypeLike = jnp.float32
) -> Float[Array, "*batch K"]:
    """Applies a 1x1 convolution, with product operands of `dtype` (float32 or bfloat16)."""
    rows = x.reshape(-1, x.shape[-1])
    product = jnp.dot if dtype == jnp.float32 else rounded_product
    y = product(rows, dense.kernel)
    return y.reshape(*x.shape[:-1], -1) + dense.bias.reshape((1,) * (x.ndim - 1) + (-1,))


def apply_norm(
    norm: Norm, x: Float[Array, "*batch C"], mask: Float[Array, " P"] | None = None
) -> tuple[Float[Array, "*batch C"], Norm]:
    """Applies BatchNorm; returns the result and the norm with updated running statistics.

    In training, `x` is rows `[P, C]` and `mask` is 1 for a row that counts, 0 for padding; without
    a mask, the running statistics normalise.
    """
    mean, var, updated = norm.mean, norm.var, norm
    if mask is not None:
        count = mask.sum()
        mean = masked_sum(mask, x) / count
        var = masked_sum(mask, jnp.square(x - mean[None])) / count
        unbiased = var * count / jnp.maximum(count - 1, 1)
        updated = dataclasses.replace(
            norm,
            mean=norm.mean + MOMENTUM * (mean - norm.mean),
            var=norm.var + MOMENTUM * (unbiased - norm.var),
        )
    gain = norm.scale / jnp.sqrt(var + EPS)
    shape = (1,) * (x.ndim - 1) + (-1,)
    return x * gain.reshape(shape) + (norm.bias - mean * gain).reshape(shape), updated


def apply_layers(
    layers: tuple[Layer, ...],
    x: Float[Array, "*batch C"],
    mask: Float[Array, " P"] | None = None,
    dtype: DTypeLike = jnp.float32,
) -> tuple[Float[Array, "*batch K"], tuple[Layer, ...]]:
    """Applies layers in turn; returns the result and the layers with updated statistics."""
    updated = []
    for layer in layers:
        x, norm = apply_dense(layer.dense, x, dtype), layer.norm
        if norm is not None:
            x, norm = apply_norm(norm, x, mask)
            x = jax.nn.relu(x)
        updated.append(Layer(layer.dense, norm))
    return x, tuple(updated)


def fold_layers(layers: tuple[Layer, ...]) -> tuple[Dense, ...]:
    """Folds each BatchNorm, with its running statistics, into the convolution before it."""
    folded = []
    for layer in layers:
        kernel, bias = layer.dense.kernel, layer.dense.bias
        if layer.norm is not None:
            gain = layer.norm.scale / (layer.norm.var + EPS) ** 0.5
            kernel = kernel * gain[None]
            bias = (bias - layer.norm.mean) * gain + layer.norm.bias
        folded.append(Dense(kernel, bias))
    return tuple(folded)
