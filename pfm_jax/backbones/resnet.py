"""ResNet up to conv4_x (He et al., 2016), with BatchNorm folded into the convolutions.

Two stride styles: torchvision strides in the 3x3 of a bottleneck and pools with padding 1; the
original Caffe networks stride in the first 1x1 and pool in ceil mode, i.e. with padding (0, 1).
"""

from __future__ import annotations

import functools
import re

import flax.linen as nn
from jax import Array

from pfm_jax.backbones.backbone import Backbone, checked, convolutional
from pfm_jax.backbones.convolution import convolution
from pfm_jax.types import STRIDES, FeaturePyramid

DEPTHS = {
    "resnet18": (2, 2, 2),
    "resnet34": (3, 4, 6),
    "resnet50": (3, 4, 6),
    "resnet101": (3, 4, 23),
    "wide_resnet50_2": (3, 4, 6),
}
NAMES = (*DEPTHS, *(f"resnet{depth}_caffe" for depth in (18, 34, 50, 101)))
UNUSED = re.compile(r"(layer4|fc)\.")


def conv(features: int, kernel: int, stride: int, name: str) -> nn.Conv:
    """Convolution with torch's padding: explicit and symmetric."""
    size = (kernel, kernel)
    return nn.Conv(features, size, stride, kernel // 2, name=name, conv_general_dilated=convolution)


class Basic(nn.Module):
    """Basic block: two 3x3 convolutions and a shortcut."""

    features: int
    stride: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Applies the block: `[B, H, W, C]` -> `[B, H/stride, W/stride, features]`."""
        y = nn.relu(conv(self.features, 3, self.stride, "conv1")(x))
        y = conv(self.features, 3, 1, "conv2")(y)
        if x.shape != y.shape:
            x = conv(self.features, 1, self.stride, "downsample")(x)
        return nn.relu(x + y)


class Bottleneck(nn.Module):
    """Bottleneck block: 1x1, 3x3, 1x1 and a shortcut, with `4 * features` output channels."""

    features: int
    stride: int
    caffe: bool
    width: int  # the 3x3 has `width * features`; 2 in Wide ResNet (Zagoruyko and Komodakis, 2016)

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Applies the block: `[B, H, W, C]` -> `[B, H/stride, W/stride, 4 * features]`."""
        first, second = (self.stride, 1) if self.caffe else (1, self.stride)
        y = nn.relu(conv(self.width * self.features, 1, first, "conv1")(x))
        y = nn.relu(conv(self.width * self.features, 3, second, "conv2")(y))
        y = conv(4 * self.features, 1, 1, "conv3")(y)
        if x.shape != y.shape:
            x = conv(4 * self.features, 1, self.stride, "downsample")(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """ResNet stem and first three stages."""

    depths: tuple[int, int, int]  # blocks in conv2_x, conv3_x, conv4_x
    bottleneck: bool  # as in ResNet50 and deeper
    caffe: bool  # stride style of the original networks
    width: int = 1  # channel multiplier of the 3x3 in a bottleneck

    @nn.compact
    def __call__(self, images: Array) -> FeaturePyramid:
        """Maps normalised RGB `[B, H, W, 3]` to stage outputs, after their last ReLU."""
        x = nn.relu(conv(64, 7, 2, "conv1")(images))
        x = nn.max_pool(x, (3, 3), (2, 2), ((0 if self.caffe else 1, 1),) * 2)
        pyramid: dict[str, Array] = {}
        for stage, depth in enumerate(self.depths):
            for index in range(depth):
                stride = 2 if stage and not index else 1
                features, name = 64 * 2**stage, f"layer{stage + 1}_{index}"
                if self.bottleneck:
                    x = Bottleneck(features, stride, self.caffe, self.width, name=name)(x)
                else:
                    x = Basic(features, stride, name=name)(x)
            pyramid[f"conv{stage + 2}_x"] = x
        return pyramid


def torch_names(path: tuple[str, ...]) -> tuple[str, str]:
    """Torchvision names of the convolution at a Flax path and of its BatchNorm."""
    *block, layer = path
    prefix = ".".join(part.replace("_", ".") for part in block) + "." * bool(block)
    if layer == "downsample":
        return f"{prefix}downsample.0", f"{prefix}downsample.1"
    return prefix + layer, prefix + layer.replace("conv", "bn")


LAYOUT = convolutional(torch_names, UNUSED)


@functools.cache
def _backbone(name: str) -> Backbone:
    arch = name.removesuffix("_caffe")  # the original stride style
    width = 2 if arch.startswith("wide") else 1
    bottleneck = arch not in ("resnet18", "resnet34")
    module = ResNet(DEPTHS[arch], bottleneck, arch != name, width)
    return Backbone(name, module, tuple(STRIDES.items()), LAYOUT)


def get(name: str, outputs: tuple[str, ...] | None = None) -> Backbone:
    """Network called `name`; see `backbones.get`."""
    return checked(_backbone(name), outputs)
