"""Writes positions.npz, vits.npz and convnexts.npz: transformers and ConvNeXts as timm has them.

Run by hand, as `make_goldens.py` and in its environment.
"""

from __future__ import annotations

import math

import numpy as np
import timm
import torch
import torch.nn.functional as F
from make_goldens import LEVELS, Arrays, load_seeded, sample, save, to_numpy, to_torch
from seeded import seeded_images, seeded_tensor
from torch import Tensor

SHORT = 4  # blocks of the large and giant ones, whose blocks are all alike
VITS = {  # name -> name in timm, blocks
    **{
        f"vit_{size}_patch16_224": (f"vit_{size}_patch16_224", SHORT if size == "large" else 12)
        for size in ("tiny", "small", "base", "large")
    },
    **{
        f"dinov2_vit{size[0]}14{suffix}": (
            f"vit_{size}_patch14{'_reg4' * bool(suffix)}_dinov2",
            SHORT if size in ("large", "giant") else 12,
        )
        for suffix in ("", "_reg")
        for size in ("small", "base", "large", "giant")
    },
    "dinov3_vits16": ("vit_small_patch16_dinov3_qkvb", 12),
    "dinov3_vits16plus": ("vit_small_plus_patch16_dinov3_qkvb", 12),
    "dinov3_vitb16": ("vit_base_patch16_dinov3_qkvb", 12),
    "dinov3_vitl16": ("vit_large_patch16_dinov3_qkvb", SHORT),
}
NO_REGISTERS = {name for name in VITS if "dinov2" in name and "reg" not in name}
GRIDS = ((14, 14), (10, 7))  # patches of the images
POSITIONS = ((14, 14), (10, 7), (40, 28))  # grids to which one of 37 x 37 is resized
CONVNEXT_SIZES = ((128, 128), (160, 96))
CONVNEXTS = {f"dinov3_convnext_{size}": size for size in ("tiny", "small", "base", "large")}


def resized(positions: Tensor, grid: tuple[int, int], factor: bool) -> Tensor:
    """`[1, N, C]` -> `[1, h * w, C]`, as DINOv2's publishers do it: without registers by a factor
    of a tenth of a patch more, with registers antialiased. timm does the latter for all.
    """
    side = math.isqrt(positions.shape[1])
    if grid == (side, side):
        return positions
    square = positions.reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if factor:
        factors = tuple((n + 0.1) / side for n in grid)
        found = F.interpolate(square, scale_factor=factors, mode="bicubic")
    else:
        found = F.interpolate(square, size=grid, mode="bicubic", antialias=True)
    return found.flatten(2).transpose(1, 2)


def make_positions() -> Arrays:
    """A position embedding at other sizes; float64."""
    seeded = torch.from_numpy(seeded_tensor("pos_embed", (1, 37**2, 3))).double()
    return {
        f"{how}/{grid[0]}x{grid[1]}": resized(seeded, grid, how == "factor").numpy()
        for how in ("factor", "antialias")
        for grid in POSITIONS
    }


@torch.no_grad()
def make_vits() -> Arrays:
    """Per network and size: shape, samples and largest magnitude of every block's output."""
    arrays: Arrays = {}
    for name, (in_timm, depth) in VITS.items():
        for grid in GRIDS:
            patch = 14 if "dinov2" in name else 16
            size = tuple(patch * n for n in grid)
            options = {"num_classes": 0, "depth": depth}
            trained = timm.create_model(in_timm, **options).state_dict()
            model = timm.create_model(in_timm, img_size=size, **options)
            seeded = {k: torch.from_numpy(seeded_tensor(k, v.shape)) for k, v in trained.items()}
            if "pos_embed" in trained:
                count, patches = trained["pos_embed"].shape[1], (14 if patch == 16 else 37) ** 2
                first, square = seeded["pos_embed"].double().split([count - patches, patches], 1)
                square = resized(square, grid, name in NO_REGISTERS)
                seeded["pos_embed"] = torch.cat([first, square], 1)
            model.double().load_state_dict(seeded)
            model.eval()
            images = to_torch(seeded_images((1, *size, 3)))
            found = model.forward_intermediates(images, norm=False, intermediates_only=True)
            for index, block in enumerate(map(to_numpy, found)):
                key = f"{name}/{grid[0]}x{grid[1]}/{index}"
                arrays[f"{key}/shape"] = np.array(block.shape)
                arrays[f"{key}/max_abs"] = np.abs(block).max()
                arrays |= sample(block, key, 64)
    return arrays


@torch.no_grad()
def make_convnexts() -> Arrays:
    """Per network and size: shape, samples and largest magnitude of every stage's output."""
    arrays: Arrays = {}
    for name, size in CONVNEXTS.items():
        model = timm.create_model(f"convnext_{size}", num_classes=0)
        load_seeded(model)
        model.double().eval()
        for pixels in CONVNEXT_SIZES:
            images = to_torch(seeded_images((1, *pixels, 3)))
            found = model.forward_intermediates(images, intermediates_only=True)
            for level, stage in zip((*LEVELS, "conv5_x"), map(to_numpy, found), strict=True):
                key = f"{name}/{pixels[0]}x{pixels[1]}/{level}"
                arrays[f"{key}/shape"] = np.array(stage.shape)
                arrays[f"{key}/max_abs"] = np.abs(stage).max()
                arrays |= sample(stage, key, 64)
    return arrays


if __name__ == "__main__":
    save("positions", make_positions())
    save("vits", make_vits())
    save("convnexts", make_convnexts())
