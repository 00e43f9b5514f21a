"""VGG up to the fifth pooling (Simonyan and Zisserman, 2015), with any BatchNorm folded.

The levels are "the last three downsampling layers" of the paper: as in its released code, the last
ReLU before the third, fourth and fifth pooling, at strides 4, 8 and 16.
"""

from __future__ import annotations

import itertools
import re

import flax.linen as nn
from jax import Array

from pfm_jax.types import LEVELS, FeaturePyramid

WIDTHS = (64, 128, 256, 512, 512)
DEPTHS = {"vgg16": (2, 2, 3, 3, 3), "vgg19": (2, 2, 4, 4, 4)}
NAMES = tuple(arch + style for style in ("", "_bn") for arch in DEPTHS)
BATCH_NORM_EPS = 1e-5
UNUSED = re.compile(r"classifier\.")

LEVEL_INDICES = {
    "vgg16": {"conv2_x": 15, "conv3_x": 22, "conv4_x": 29},
    "vgg19": {"conv2_x": 17, "conv3_x": 26, "conv4_x": 35},
    "vgg16_bn": {"conv2_x": 22, "conv3_x": 32, "conv4_x": 42},
    "vgg19_bn": {"conv2_x": 25, "conv3_x": 38, "conv4_x": 51},
}
"""Indices into torchvision's `features`: relu3_3, relu4_3, relu5_3; in VGG19 relu3_4 and so on."""


class Vgg(nn.Module):
    """Blocks of 3x3 convolutions, with pooling after each but the last.

    Attributes:
        depths: number of convolutions per block.
    """

    depths: tuple[int, ...]

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


def build(name: str) -> Vgg:
    """Network called `name`."""
    return Vgg(DEPTHS[name.removesuffix("_bn")])


def torch_names(name: str, path: tuple[str, ...]) -> tuple[str, str | None]:
    """Torchvision names of the convolution at a Flax path and of its BatchNorm, if it has one.

    Torchvision numbers all layers consecutively: convolution, BatchNorm (if any), ReLU, and the
    pooling between blocks.
    """
    block, index = (int(number) for number in path[-1].removeprefix("conv").split("_"))
    depths = DEPTHS[name.removesuffix("_bn")]
    before = sum(itertools.islice(depths, block - 1)) + index - 1
    number = (3 if name.endswith("_bn") else 2) * before + block - 1
    return f"features.{number}", f"features.{number + 1}" if name.endswith("_bn") else None
