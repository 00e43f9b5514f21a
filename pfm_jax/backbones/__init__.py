"""Frozen backbones: Flax modules that return named stages, and their checkpoint key names.

To add a family, write one file beside `resnet.py` (the module, `build`, `torch_names`) and a
branch in `get`.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn

from pfm_jax.backbones import efficientnet_lite, resnet, vgg
from pfm_jax.types import InputError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

RESNETS = (*resnet.DEPTHS, *(f"resnet{depth}_caffe" for depth in (18, 34, 50, 101)))
NAMES = (*RESNETS, *vgg.NAMES, *efficientnet_lite.STAGES)


class Backbone(NamedTuple):
    """Architecture without its weights.

    Attributes:
        name: one of `NAMES`.
        module: normalised RGB `[B, H, W, 3]` -> FeaturePyramid.
        mean, std: per-channel normalisation of images in [0, 1] used in pre-training.
        torch_names: Flax path of a convolution -> checkpoint names of it and of its BatchNorm
            (None if it has none).
        conv_bias: whether the convolutions have a bias.
        unused: pattern of checkpoint names that belong to discarded layers.
        batch_norm_eps: epsilon of the folded BatchNorm.
    """

    name: str
    module: nn.Module
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    torch_names: Callable[[tuple[str, ...]], tuple[str, str | None]]
    conv_bias: bool
    unused: re.Pattern[str]
    batch_norm_eps: float


def get(name: str) -> Backbone:
    """Architecture called `name`. Raises InputError if there is none."""
    if name in RESNETS:
        return Backbone(
            name=name,
            module=resnet.build(name),
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            torch_names=resnet.torch_names,
            conv_bias=False,
            unused=resnet.UNUSED,
            batch_norm_eps=resnet.BATCH_NORM_EPS,
        )
    if name in vgg.NAMES:
        return Backbone(
            name=name,
            module=vgg.build(name),
            mean=IMAGENET_MEAN,
            std=IMAGENET_STD,
            torch_names=functools.partial(vgg.torch_names, name),
            conv_bias=True,
            unused=vgg.UNUSED,
            batch_norm_eps=vgg.BATCH_NORM_EPS,
        )
    if name in efficientnet_lite.STAGES:
        return Backbone(
            name=name,
            module=efficientnet_lite.build(name),
            mean=(127 / 255,) * 3,
            std=(128 / 255,) * 3,
            torch_names=efficientnet_lite.torch_names,
            conv_bias=False,
            unused=efficientnet_lite.unused(name),
            batch_norm_eps=efficientnet_lite.BATCH_NORM_EPS,
        )
    raise InputError(f"no network is called {name!r}; there are {', '.join(NAMES)}")
