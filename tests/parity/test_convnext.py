"""ConvNeXt against timm, stage by stage, on seeded weights (goldens/make_timm.py)."""

from __future__ import annotations

import re
from pathlib import Path

import jax
import numpy as np
import pytest

from pfm_jax import backbones
from pfm_jax.backbones import convnext, weights
from pfm_jax.types import InputError
from tests.parity.goldens.seeded import seeded_images, seeded_tensor

GOLDENS = np.load(Path(__file__).parent / "goldens" / "convnexts.npz")
# Of the largest magnitude of a stage.
TOLERANCE = 1e-5


def seeded(name: str, *outputs: str) -> dict[str, np.ndarray]:
    shapes = weights.expected(backbones.get(name, outputs or None))
    return {key: seeded_tensor(key, shape) for key, shape in shapes.items()}


@pytest.mark.parametrize("name", convnext.NAMES)
def test_stages_agree_with_timm(name: str):
    backbone = backbones.get(name)
    params = weights.convert(backbone, seeded(name), Path("seeded"))
    for height, width in ((128, 128), (160, 96)):
        images = seeded_images((1, height, width, 3))
        found = jax.device_get(backbone.module.apply(params, images))  # compiling takes longer
        for level, stride in backbone.strides:
            key, output = f"{name}/{height}x{width}/{level}", found[level]
            assert output.shape == tuple(GOLDENS[f"{key}/shape"]), key
            assert output.shape[1:3] == (height // stride, width // stride)
            samples = output.reshape(-1)[GOLDENS[f"{key}/indices"]]
            error = np.abs(samples - GOLDENS[f"{key}/values"]).max() / GOLDENS[f"{key}/max_abs"]
            assert error < TOLERANCE, key


def test_the_layout_of_the_publishers_gives_the_same_weights():
    tensors = seeded("dinov3_convnext_tiny", "conv3_x")
    theirs = {"norm.weight": np.ones(768), "norms.3.weight": np.ones(768)}
    for key, tensor in tensors.items():
        key = re.sub(r"^stem", "downsample_layers.0", key)
        key = re.sub(r"^stages.(\d).downsample", r"downsample_layers.\1", key)
        key = re.sub(r"^stages.(\d).blocks", r"stages.\1", key)
        theirs[key.replace("conv_dw", "dwconv").replace("mlp.fc", "pwconv")] = tensor
    theirs["stages.3.0.gamma"] = np.ones(768)
    backbone = backbones.get("dinov3_convnext_tiny", ("conv3_x",))
    found = weights.select(backbone, theirs, Path("theirs"))
    assert set(found) == set(tensors)
    for key, tensor in found.items():
        np.testing.assert_array_equal(tensor, tensors[key], err_msg=key)


def test_stages_after_the_last_are_not_loaded():
    assert any("stages.2" in key for key in seeded("dinov3_convnext_tiny", "conv2_x", "conv4_x"))
    assert not any("stages.2" in key for key in seeded("dinov3_convnext_tiny", "conv3_x"))
    with pytest.raises(InputError, match="no stage 'conv6_x'; it has conv2_x, conv3_x, conv4_x, "):
        backbones.get("dinov3_convnext_tiny", ("conv6_x",))
