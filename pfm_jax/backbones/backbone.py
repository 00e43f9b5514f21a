"""A frozen architecture and the layout of its checkpoints: what every family gives."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import numpy as np

from pfm_jax.types import InputError

Path = tuple[str, ...]
"""Where an array lies among the Flax variables, such as `("layer1_0", "conv1", "kernel")`."""

Tensors = dict[str, np.ndarray]
"""Name in a checkpoint -> tensor, in torch's order of axes."""


class Layout(NamedTuple):
    """How the checkpoints of a family hold its weights.

    Attributes:
        sources: path and shape of a Flax array -> name and shape of each tensor it is made of.
        value: path of a Flax array, and all tensors -> the array.
        unused: names of tensors of layers that are not used.
        canonical: brings the tensors of other layouts into this one.
    """

    sources: Callable[[Path, tuple[int, ...]], dict[str, tuple[int, ...]]]
    value: Callable[[Path, Tensors], np.ndarray]
    unused: re.Pattern[str]
    canonical: Callable[[Tensors], Tensors] = dict


class Backbone(NamedTuple):
    """Architecture without its weights."""

    name: str  # one of `backbones.NAMES`
    module: nn.Module  # normalised RGB `[B, H, W, 3]` -> FeaturePyramid
    strides: tuple[tuple[str, int], ...]  # of each stage that the module outputs, in pixels
    layout: Layout
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Per-channel normalisation in pre-training, of images in [0, 1]."""


def checked(backbone: Backbone, outputs: tuple[str, ...] | None) -> Backbone:
    """The backbone, if it has these stages. Raises InputError."""
    known = dict(backbone.strides)
    for stage in outputs or ():
        if stage not in known:
            raise InputError(f"{backbone.name} has no stage {stage!r}; it has {', '.join(known)}")
    return backbone


def one_to_one(
    torch_name: Callable[[Path], str],
    unused: re.Pattern[str],
    canonical: Callable[[Tensors], Tensors],
) -> Layout:
    """Layout in which each Flax array is one tensor; kernels differ in the order of their axes.

    `torch_name`: path of a Flax array -> name of the tensor. The rest is as in `Layout`.
    """

    def sources(path: Path, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        if path[-1] == "kernel":
            shape = (*shape[:-3:-1], *shape[:-2])
        return {torch_name(path): shape}

    def value(path: Path, tensors: Tensors) -> np.ndarray:
        tensor = tensors[torch_name(path)]
        if path[-1] != "kernel":
            return tensor
        return tensor.T if tensor.ndim == 2 else tensor.transpose(2, 3, 1, 0)

    return Layout(sources, value, unused, canonical)


def convolutional(
    torch_names: Callable[[Path], tuple[str, str | None]],
    unused: re.Pattern[str],
    *,
    conv_bias: bool = False,
    batch_norm_eps: float = 1e-5,
) -> Layout:
    """Layout of a network whose Flax variables are convolutions with BatchNorm folded into them.

    Args:
        torch_names: path of a convolution -> names of it and of its BatchNorm, if it has one.
        conv_bias: whether the checkpoint's convolutions have a bias.
    """

    def sources(path: Path, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
        conv, norm = torch_names(path[:-1])
        if path[-1] == "kernel":
            height, width, inputs, outputs = shape
            return {f"{conv}.weight": (outputs, inputs, height, width)}
        found = {f"{conv}.bias": shape} if conv_bias else {}
        statistics = ("weight", "bias", "running_mean", "running_var") if norm else ()
        return found | {f"{norm}.{statistic}": shape for statistic in statistics}

    def value(path: Path, tensors: Tensors) -> np.ndarray:
        conv, norm = torch_names(path[:-1])
        kernel = tensors[f"{conv}.weight"].transpose(2, 3, 1, 0)
        width = kernel.shape[-1:]
        scale, shift = np.ones(width), tensors.get(f"{conv}.bias", np.zeros(width))
        if norm is not None:
            variance = tensors[f"{norm}.running_var"].astype(np.float64)
            scale = tensors[f"{norm}.weight"] / np.sqrt(variance + batch_norm_eps)
            shift = tensors[f"{norm}.bias"] + (shift - tensors[f"{norm}.running_mean"]) * scale
        return kernel * scale if path[-1] == "kernel" else shift

    return Layout(sources, value, unused)
