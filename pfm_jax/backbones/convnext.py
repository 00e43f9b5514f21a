"""ConvNeXt (Liu et al., 2022) as DINOv3 publishes it; stages at strides 4, 8, 16 and 32.

Stages after the last that is needed are not part of the network. Checkpoints may have timm's layout
or that of the publishers.
"""

from __future__ import annotations

import functools
import re

import flax.linen as nn
from jax import Array

from pfm_jax.backbones.backbone import Backbone, Path, Tensors, checked, one_to_one
from pfm_jax.backbones.convolution import DepthwiseConv
from pfm_jax.types import STRIDES, FeaturePyramid

ALL_STRIDES = {**STRIDES, "conv5_x": 32}
DEPTHS_AND_WIDTHS = {
    "dinov3_convnext_tiny": ((3, 3, 9, 3), (96, 192, 384, 768)),
    "dinov3_convnext_small": ((3, 3, 27, 3), (96, 192, 384, 768)),
    "dinov3_convnext_base": ((3, 3, 27, 3), (128, 256, 512, 1024)),
    "dinov3_convnext_large": ((3, 3, 27, 3), (192, 384, 768, 1536)),
}
NAMES = tuple(DEPTHS_AND_WIDTHS)
EPS = 1e-6  # of every LayerNorm


def layer_norm(name: str) -> nn.LayerNorm:
    """LayerNorm over the channels, as torch computes it."""
    return nn.LayerNorm(EPS, use_fast_variance=False, name=name)


class Block(nn.Module):
    """Depthwise 7x7 convolution, norm and perceptron, with a shortcut."""

    @nn.compact
    def __call__(self, x: Array) -> Array:
        """Applies the block to `[B, H, W, C]`."""
        width = x.shape[-1]
        y = layer_norm("norm")(DepthwiseConv(7, 1, name="conv_dw")(x))
        y = nn.gelu(nn.Dense(4 * width, name="mlp_fc1")(y), approximate=False)
        y = nn.Dense(width, name="mlp_fc2")(y)
        gamma = self.param("gamma", nn.initializers.ones, (width,))
        return x + y * gamma.reshape(1, 1, 1, width)


class ConvNeXt(nn.Module):
    """Stages up to the last that is needed."""

    depths: tuple[int, ...]
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, images: Array) -> FeaturePyramid:
        """Maps normalised RGB `[B, H, W, 3]` to stage outputs, before any norm."""
        x, pyramid = images, {}
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            side = 2 if stage else 4
            x = layer_norm(f"downsample{stage}_norm")(x) if stage else x
            name = f"downsample{stage}_conv"
            x = nn.Conv(width, (side, side), (side, side), "VALID", name=name)(x)
            x = x if stage else layer_norm("downsample0_norm")(x)
            for index in range(depth):
                x = Block(name=f"stages{stage}_blocks{index}")(x)
            pyramid[f"conv{stage + 2}_x"] = x
        return pyramid


def torch_name(path: Path) -> str:
    """Name in timm's layout of the tensor of a Flax array."""
    *place, leaf = path
    if match := re.fullmatch(r"downsample(\d)_(norm|conv)", place[0]):
        stage, kind = int(match[1]), match[2]
        first = "conv" if stage == 0 else "norm"
        name = (f"stages.{stage}.downsample" if stage else "stem") + f".{int(kind != first)}"
    else:
        stage, block = re.findall(r"\d+", place[0])
        inner = [part.replace("mlp_", "mlp.") for part in place[1:]]
        name = ".".join([f"stages.{stage}.blocks.{block}", *inner])
    return f"{name}.{'weight' if leaf in ('kernel', 'scale') else leaf}"


def canonical(tensors: Tensors) -> Tensors:
    """Brings the layout of the publishers into timm's."""
    found = {}
    for key, tensor in tensors.items():
        key = re.sub(r"^downsample_layers\.0\.", "stem.", key)
        key = re.sub(r"^downsample_layers\.(\d)\.", r"stages.\1.downsample.", key)
        key = re.sub(r"^stages\.(\d)\.(\d+)\.", r"stages.\1.blocks.\2.", key)
        found[key.replace("dwconv", "conv_dw").replace("pwconv", "mlp.fc")] = tensor
    return found


@functools.cache
def _backbone(name: str, stages: int) -> Backbone:
    depths, widths = DEPTHS_AND_WIDTHS[name]
    later = "".join(map(str, range(stages, 4))) or "x"
    unused = re.compile(rf"stages\.[{later}]\.|(norm|norms|norm_pre|head)\.")
    return Backbone(
        name,
        ConvNeXt(depths[:stages], widths[:stages]),
        tuple(ALL_STRIDES.items())[:stages],
        one_to_one(torch_name, unused, canonical),
    )


def get(name: str, outputs: tuple[str, ...] | None = None) -> Backbone:
    """Network called `name`; see `backbones.get`."""
    checked(_backbone(name, 4), outputs)
    return _backbone(name, 1 + max(map(list(ALL_STRIDES).index, outputs or ALL_STRIDES)))
