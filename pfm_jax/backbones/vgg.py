"""VGG up to the fifth pooling (Simonyan and Zisserman, 2015), with any BatchNorm folded.

Its stages are "the last three downsampling layers" of the paper: as in its released code, the last
ReLU before the third, fourth and fifth pooling, at strides 4, 8 and 16 (relu3_3, relu4_3, relu5_3;
in VGG19 relu3_4, relu4_4, relu5_4).
"""

from __future__ import annotations

import functools
import re

import flax.linen as nn
from jax import Array

from pfm_jax.backbones.backbone import Backbone, checked, convolutional
from pfm_jax.types import LEVELS, STRIDES, FeaturePyramid

WIDTHS = (64, 128, 256, 512, 512)
DEPTHS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
NAMES = tuple(arch + style for style in ("", "_bn") for arch in DEPTHS)
UNUSED = re.compile(r"classifier\.")


class Vgg(nn.Module):
    """Blocks of 3x3 convolutions, with pooling after each but the last."""

    depths: tuple[int, ...]  # convolutions per block

    @nn.compact
    def __call__(self, images: Array) -> FeaturePyramid:
        """Maps normalised RGB `[B, H, W, 3]` to the last three block outputs, after ReLU."""
        x, outputs = images, []
        for block, (width, depth) in enumerate(zip(WIDTHS, self.depths, strict=True)):
            if block:
                x = nn.max_pool(x, (2, 2), (2, 2))
            for index in range(depth):
                name = f"conv{block + 1}_{index + 1}"
                x = nn.relu(nn.Conv(width, (3, 3), padding=1, name=name)(x))
            outputs.append(x)
        return dict(zip(LEVELS, outputs[2:], strict=True))


def torch_names(name: str, path: tuple[str, ...]) -> tuple[str, str | None]:
    """Torchvision names of the convolution at a Flax path and of its BatchNorm, if it has one.

    Torchvision numbers layers consecutively: convolution, BatchNorm, ReLU, pooling after a block.
    """
    block, index = map(int, path[-1].removeprefix("conv").split("_"))
    arch, norm = name.removesuffix("_bn"), name.endswith("_bn")
    number = (3 if norm else 2) * (sum(DEPTHS[arch][: block - 1]) + index - 1) + block - 1
    return f"features.{number}", f"features.{number + 1}" if norm else None


@functools.cache
def _backbone(name: str) -> Backbone:
    layout = convolutional(functools.partial(torch_names, name), UNUSED, conv_bias=True)
    return Backbone(name, Vgg(DEPTHS[name.removesuffix("_bn")]), tuple(STRIDES.items()), layout)


def get(name: str, outputs: tuple[str, ...] | None = None) -> Backbone:
    """Network called `name`; see `backbones.get`."""
    return checked(_backbone(name), outputs)
