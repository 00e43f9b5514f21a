"""Networks that are trained: convolutions with BatchNorm, and a small ResNet of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, Key

from pfm_jax.model.layers import Norm, apply_norm, init_norm
from pfm_jax.types import LEVELS, FeaturePyramid

WIDTHS = dict(zip(LEVELS, (64, 128, 256), strict=True))
"""Channels of the stages of ResNet18 and ResNet34."""

BLOCKS = 2
"""Residual blocks of a stage of the student, which is a ResNet18."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Conv:
    """A convolution without bias, kernel `[h, w, C, K]`, and BatchNorm."""

    kernel: Array
    norm: Norm


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Block:
    """Two 3x3 convolutions and a shortcut."""

    first: Conv
    second: Conv
    shortcut: Conv | None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Student:
    """A ResNet18 up to the last stage that it learns; stage -> blocks."""

    stem: Conv
    stages: dict[str, tuple[Block, ...]]


def init_conv(key: Key[Array, ""], side: int, inputs: int, outputs: int) -> Conv:
    """A fresh convolution, as of torchvision's ResNets."""
    kernel = jax.random.normal(key, (side, side, inputs, outputs))
    return Conv(np.sqrt(2 / (side * side * outputs)) * kernel, init_norm(outputs))


def init(key: Key[Array, ""], stages: tuple[str, ...]) -> Student:
    """A fresh student up to the last of some stages."""
    names = LEVELS[: 1 + max(map(LEVELS.index, stages))]
    keys = iter(jax.random.split(key, 1 + 3 * BLOCKS * len(names)))
    inputs = WIDTHS[LEVELS[0]]
    stem, found = init_conv(next(keys), 7, 3, inputs), {}
    for stage in names:
        found[stage] = tuple(_init_blocks(keys, inputs, WIDTHS[stage]))
        inputs = WIDTHS[stage]
    return Student(stem, found)


def _init_blocks(keys: Iterator[Array], inputs: int, width: int) -> Iterator[Block]:
    for _ in range(BLOCKS):
        shortcut = init_conv(next(keys), 1, inputs, width) if inputs != width else None
        first, second = (init_conv(next(keys), 3, n, width) for n in (inputs, width))
        yield Block(first, second, shortcut)
        inputs = width


def apply(
    student: Student, x: Float[Array, "B H W 3"], mask: Float[Array, " B"] | None = None
) -> tuple[FeaturePyramid, Student]:
    """Features of every stage of normalised images, after the last ReLU.

    With a `mask` of the images that count BatchNorm trains, without one it uses its running
    statistics. Returns the student with new statistics too.
    """
    x, stem = _apply_conv(student.stem, x, 2, mask)
    window = (1, 3, 3, 1), (1, 2, 2, 1), _padding(3)
    x = lax.reduce_window(jax.nn.relu(x), -jnp.inf, lax.max, *window)
    found, stages = {}, {}
    for stage, blocks in student.stages.items():
        done = []
        for index, block in enumerate(blocks):
            stride = 2 if index == 0 and stage != LEVELS[0] else 1
            x, own = _apply_block(block, x, stride, mask)
            done.append(own)
        found[stage], stages[stage] = x, tuple(done)
    return found, Student(stem, stages)


def _padding(side: int) -> tuple[tuple[int, int], ...]:
    return (0, 0), (side // 2, side // 2), (side // 2, side // 2), (0, 0)


def _apply_conv(
    conv: Conv, x: Float[Array, "B H W C"], stride: int, mask: Array | None
) -> tuple[Float[Array, "B h w K"], Conv]:
    y = convolve(x, conv.kernel, stride)
    rows = None if mask is None else jnp.repeat(mask, math.prod(y.shape[1:3]))
    z, norm = apply_norm(conv.norm, y.reshape(-1, y.shape[-1]), rows)
    return z.reshape(y.shape), Conv(conv.kernel, norm)


def convolve(
    x: Float[Array, "B H W C"], kernel: Float[Array, "s s C K"], stride: int
) -> Float[Array, "B h w K"]:
    """Convolves, padded by half the kernel's side.

    On a CPU by a product with the pixels under the kernel, whose gradient is one, too: that of a
    convolution takes minutes there.
    """
    side, reach = kernel.shape[0], kernel.shape[0] // 2

    def product(x: Array, kernel: Array) -> Array:
        height, width = (-(-length // stride) for length in x.shape[1:3])
        padded = jnp.pad(x, _padding(side))
        under = [
            padded[:, i : i + stride * height : stride, j : j + stride * width : stride]
            for i in range(side)
            for j in range(side)
        ]
        return jnp.concatenate(under, -1) @ kernel.reshape(-1, kernel.shape[-1])

    def convolution(x: Array, kernel: Array) -> Array:
        padding, kind = ((reach, reach),) * 2, ("NHWC", "HWIO", "NHWC")
        strides = (stride, stride)
        return lax.conv_general_dilated(x, kernel, strides, padding, dimension_numbers=kind)

    found: Array = lax.platform_dependent(x, kernel, cpu=product, default=convolution)
    return found


def _apply_block(block: Block, x: Array, stride: int, mask: Array | None) -> tuple[Array, Block]:
    y, first = _apply_conv(block.first, x, stride, mask)
    y, second = _apply_conv(block.second, jax.nn.relu(y), 1, mask)
    shortcut = block.shortcut
    if shortcut is not None:
        x, shortcut = _apply_conv(shortcut, x, stride, mask)
    return jax.nn.relu(x + y), Block(first, second, shortcut)
