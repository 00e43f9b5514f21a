"""Frozen backbones: Flax modules that return named stages, and their checkpoint key names.

A new family is one file beside `resnet.py` and a branch in `get`; docs/backbones-and-weights.md has
all steps.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn

from pfm_jax.backbones import efficientnet_lite, resnet, vgg
from pfm_jax.types import InputError

RESNETS = (*resnet.DEPTHS, *(f"resnet{depth}_caffe" for depth in (18, 34, 50, 101)))
NAMES = (*RESNETS, *vgg.NAMES, *efficientnet_lite.STAGES)


class Backbone(NamedTuple):
    """Architecture without its weights."""

    name: str  # one of `NAMES`
    module: nn.Module  # normalised RGB `[B, H, W, 3]` -> FeaturePyramid
    torch_names: Callable[[tuple[str, ...]], tuple[str, str | None]]
    """Flax path of a convolution -> checkpoint names of it and of its BatchNorm, if any."""
    unused: re.Pattern[str]  # checkpoint names that belong to discarded layers
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Per-channel normalisation in pre-training, of images in [0, 1]."""
    conv_bias: bool = False  # whether the convolutions have a bias
    batch_norm_eps: float = 1e-5  # epsilon of the folded BatchNorm


def get(name: str) -> Backbone:
    """Architecture called `name`. Raises InputError if there is none."""
    if name in RESNETS:
        return Backbone(name, resnet.build(name), resnet.torch_names, resnet.UNUSED)
    if name in vgg.NAMES:
        torch_names = functools.partial(vgg.torch_names, name)
        return Backbone(name, vgg.build(name), torch_names, vgg.UNUSED, conv_bias=True)
    if name in efficientnet_lite.STAGES:
        return Backbone(
            name,
            efficientnet_lite.build(name),
            efficientnet_lite.torch_names,
            efficientnet_lite.unused(name),
            mean=(127 / 255,) * 3,
            std=(128 / 255,) * 3,
            batch_norm_eps=1e-3,
        )
    raise InputError(f"unknown network {name!r}; available: {', '.join(NAMES)}")
