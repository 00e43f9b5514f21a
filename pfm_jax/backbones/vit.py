"""Vision transformers: supervised (Dosovitskiy et al., 2021), DINOv2 and DINOv3 (2023, 2025).

A stage is a block's output, `"7"`, or the mean of several, `"4-7"`, as features `[B, h, w, C]` of
the patches, before the final norm; `"4-7-cls"` is that minus the class token. Blocks are counted
from 0; those after the last that is needed are not part of the network.
"""

from __future__ import annotations

import functools
import math
import re
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array

from pfm_jax.backbones import vit_layout
from pfm_jax.backbones.backbone import Backbone
from pfm_jax.backbones.resize import bicubic
from pfm_jax.types import FeaturePyramid, InputError


class Spec(NamedTuple):
    """Sizes and variants of a vision transformer.

    Attributes:
        hidden: width of the multilayer perceptrons; with `swiglu`, of each of their two gates.
        grid: patches a side for which the position embedding was trained; 0 for rotary positions.
        layer_scale: whether branches are scaled channel by channel before they are added.
        antialias: whether the position embedding is resized to another grid with antialiasing.
        offset: added to the number of patches in torch's `scale_factor` of that resizing.
    """

    patch: int
    width: int
    depth: int
    heads: int
    hidden: int
    grid: int
    registers: int = 0
    layer_scale: bool = False
    swiglu: bool = False
    antialias: bool = True
    offset: float = 0.0
    eps: float = 1e-6  # of every LayerNorm


SIZES = {  # width, depth, heads, hidden
    "tiny": (192, 12, 3, 768),
    "small": (384, 12, 6, 1536),
    "base": (768, 12, 12, 3072),
    "large": (1024, 24, 16, 4096),
    "giant": (1536, 40, 24, 4096),
}
SUPERVISED = {
    f"vit_{size}_patch16_224": Spec(16, *SIZES[size], grid=14)
    for size in ("tiny", "small", "base", "large")
}
DINOV2 = {
    f"dinov2_vit{size[0]}14{suffix}": Spec(
        14,
        *SIZES[size],
        grid=37,
        registers=4 if suffix else 0,
        layer_scale=True,
        swiglu=size == "giant",
        antialias=bool(suffix),
        offset=0.0 if suffix else 0.1,
    )
    for suffix in ("", "_reg")
    for size in ("small", "base", "large", "giant")
}
DINOV3 = {
    name: Spec(16, *SIZES[size], 0, 4, layer_scale=True, swiglu=name.endswith("plus"), eps=1e-5)
    for name, size in (
        ("dinov3_vits16", "small"),
        ("dinov3_vits16plus", "small"),
        ("dinov3_vitb16", "base"),
        ("dinov3_vitl16", "large"),
    )
}
SPECS = SUPERVISED | DINOV2 | DINOV3
NAMES = tuple(SPECS)

LESS_CLASS = "-cls"
"""Suffix of a stage from which the class token is subtracted."""

Rotation = tuple[Array, Array]
"""Sine and cosine, float32 `[P, head width]`, by which queries and keys of P patches are turned."""


class Block(nn.Module):
    """Transformer block: attention and a perceptron, each after a norm and with a shortcut."""

    spec: Spec

    @nn.compact
    def __call__(self, tokens: Array, rotation: Rotation | None) -> Array:
        """Applies the block to `[B, T, C]`, whose last tokens are the patches."""
        spec = self.spec
        norms = {name: layer_norm(name, spec.eps) for name in ("norm1", "norm2")}
        y = nn.Dense(3 * spec.width, name="attn_qkv")(norms["norm1"](tokens))
        parts = y.reshape(*y.shape[:2], 3, spec.heads, -1)
        query, key, value = parts[:, :, 0], parts[:, :, 1], parts[:, :, 2]
        if rotation is not None:
            query, key = rotated(query, rotation), rotated(key, rotation)
        y = jax.nn.dot_product_attention(query, key, value)
        y = nn.Dense(spec.width, name="attn_proj")(y.reshape(tokens.shape))
        tokens = tokens + self.scaled(y, "ls1")
        y = norms["norm2"](tokens)
        if spec.swiglu:
            gate, y = jnp.split(nn.Dense(2 * spec.hidden, name="mlp_fc1")(y), 2, -1)
            y = nn.silu(gate) * y
        else:
            y = nn.gelu(nn.Dense(spec.hidden, name="mlp_fc1")(y), approximate=False)
        y = nn.Dense(spec.width, name="mlp_fc2")(y)
        return tokens + self.scaled(y, "ls2")

    def scaled(self, branch: Array, name: str) -> Array:
        """Scales a branch by a learned factor for each channel, if the network does."""
        if not self.spec.layer_scale:
            return branch
        gamma = self.param(f"{name}_gamma", nn.initializers.ones, (branch.shape[-1],))
        return branch * gamma.reshape(1, 1, -1)


def layer_norm(name: str, eps: float) -> nn.LayerNorm:
    """LayerNorm as torch computes it."""
    return nn.LayerNorm(eps, use_fast_variance=False, name=name)


def rotated(x: Array, rotation: Rotation) -> Array:
    """Turns the last tokens of `[B, T, heads, width]`, in float32; the others stay as they are."""
    sine, cosine = (part[None, :, None] for part in rotation)
    first, patches = jnp.split(x, [x.shape[1] - sine.shape[1]], 1)
    patches = patches.astype(jnp.float32)
    left, right = jnp.split(patches, 2, -1)
    patches = patches * cosine + jnp.concatenate([-right, left], -1) * sine
    return jnp.concatenate([first, patches.astype(x.dtype)], 1)


def rotation_of(grid: tuple[int, int], periods: Array) -> Rotation:
    """Axial rotation of each patch `[P, 4 * periods]`, from its centre's place in [-1, 1]."""
    places = ((2 * np.arange(side) + 1) / side - 1 for side in grid)
    rows, columns = np.meshgrid(*places, indexing="ij")
    place = jnp.asarray(np.stack([rows, columns], -1).reshape(-1, 2, 1), jnp.float32)
    angles = (2 * math.pi * place / periods.astype(jnp.float32)[None, None]).reshape(len(place), -1)
    angles = jnp.tile(angles, (1, 2))
    return jnp.sin(angles), jnp.cos(angles)


class VisionTransformer(nn.Module):
    """Patch embedding and the blocks up to the last that is needed."""

    spec: Spec
    outputs: tuple[str, ...]  # stages

    @nn.compact
    def __call__(self, images: Array) -> FeaturePyramid:
        """Maps normalised RGB `[B, H, W, 3]` to stages `[B, H/patch, W/patch, width]`."""
        spec, (batch, *_) = self.spec, images.shape
        side = (spec.patch, spec.patch)
        patches = nn.Conv(spec.width, side, side, "VALID", name="patch_embed")(images)
        _, height, width, channels = patches.shape
        small, rotation = nn.initializers.normal(0.02), None
        if spec.grid:
            positions = self.param("pos_embed", small, (1, spec.grid**2, channels))
            patches = patches + resized(positions, (height, width), spec).astype(patches.dtype)
        else:
            fresh = jnp.asarray(vit_layout.periods(spec.width // spec.heads))
            periods = self.param("rope_periods", lambda _: fresh)
            rotation = rotation_of((height, width), periods)
        first = [self.param("cls_token", small, (1, 1, channels))]
        if spec.registers:
            first.append(self.param("reg_token", small, (1, spec.registers, channels)))
        first = [jnp.broadcast_to(token, (batch, *token.shape[1:])) for token in first]
        tokens = jnp.concatenate([*first, patches.reshape(batch, -1, channels)], 1)
        wanted = {stage: blocks(stage) for stage in self.outputs}
        sums: FeaturePyramid = {}
        for index in range(1 + max(group[-1] for group in wanted.values())):
            tokens = Block(spec, name=f"blocks_{index}")(tokens, rotation)
            for stage in (stage for stage, group in wanted.items() if index in group):
                own = tokens[:, 1 + spec.registers :]
                own = own - tokens[:, :1] if stage.endswith(LESS_CLASS) else own
                sums[stage] = sums.get(stage, 0) + own
        shape = batch, height, width, channels
        return {stage: (sums[stage] / len(wanted[stage])).reshape(shape) for stage in self.outputs}


def resized(positions: Array, grid: tuple[int, int], spec: Spec) -> Array:
    """Resizes a position embedding `[1, spec.grid**2, C]` to `[1, h, w, C]`, in float32."""
    square = positions.reshape(spec.grid, spec.grid, -1).astype(jnp.float32)
    if grid != (spec.grid, spec.grid):
        rows, columns = (
            bicubic(
                spec.grid,
                side,
                (side + spec.offset) / spec.grid if spec.offset else None,
                antialias=spec.antialias,
            ).astype(np.float32)
            for side in grid
        )
        square = jnp.einsum("hg,wk,gkc->hwc", rows, columns, square, precision="highest")
    return square[None]


def blocks(stage: str) -> range:
    """Blocks whose mean is a stage. Raises InputError if the name is none of a stage."""
    match = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", stage.removesuffix(LESS_CLASS))
    found = range(int(match[1]), int(match[2] or match[1]) + 1) if match else range(0)
    if not found:
        raise InputError(
            f"{stage!r} is no stage of a transformer; name a block, 7, or several, 4-7, "
            "or either minus the class token, 4-7-cls"
        )
    return found


@functools.cache
def get(name: str, outputs: tuple[str, ...] | None = None) -> Backbone:
    """Network called `name`; if `outputs` is None, every block is a stage. See `backbones.get`."""
    spec = SPECS[name]
    outputs = outputs or tuple(map(str, range(spec.depth)))
    last = 0
    for stage in outputs:
        last = max(last, blocks(stage)[-1])
        if last >= spec.depth:
            raise InputError(f"{name} has no stage {stage!r}; its blocks are 0 to {spec.depth - 1}")
    supervised = name in SUPERVISED
    return Backbone(
        name,
        VisionTransformer(spec, outputs),
        tuple((stage, spec.patch) for stage in outputs),
        vit_layout.layout(last, rotary=not spec.grid),
        mean=(0.5, 0.5, 0.5) if supervised else (0.485, 0.456, 0.406),
        std=(0.5, 0.5, 0.5) if supervised else (0.229, 0.224, 0.225),
    )
