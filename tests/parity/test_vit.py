"""Vision transformers against timm, block by block, on seeded weights (goldens/make_goldens.py)."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pfm_jax import backbones
from pfm_jax.backbones import vit, weights
from pfm_jax.backbones.backbone import Backbone
from pfm_jax.types import InputError
from tests.parity.goldens.seeded import seeded_images, seeded_tensor

FOLDER = Path(__file__).parent / "goldens"
GOLDENS, POSITIONS = np.load(FOLDER / "vits.npz"), np.load(FOLDER / "positions.npz")
# Of the largest magnitude of a block.
TOLERANCE = 1e-5

GRIDS = ((14, 14), (10, 7))


def num_blocks(name: str) -> int:
    """Blocks of a network in the goldens: those of the large ones are all alike."""
    return sum(key.startswith(f"{name}/14x14/") and key.endswith("/shape") for key in GOLDENS)


def published(backbone: Backbone) -> dict[str, np.ndarray]:
    """The tensors that the golden script filled timm's network with."""
    shapes = weights.expected(backbone)
    if "reg_token" not in shapes:  # the class token has a position of its own
        _, patches, width = shapes["pos_embed"]
        shapes["pos_embed"] = 1, 1 + patches, width
    return {key: seeded_tensor(key, shape) for key, shape in shapes.items()}


@pytest.mark.parametrize("name", vit.NAMES)
def test_blocks_agree_with_timm(name: str):
    backbone = backbones.get(name, tuple(map(str, range(num_blocks(name)))))
    params = weights.convert(backbone, published(backbone), Path("seeded"))
    apply, patch = jax.jit(backbone.module.apply), vit.SPECS[name].patch
    for grid in GRIDS:
        images = seeded_images((1, patch * grid[0], patch * grid[1], 3))
        for stage, output in jax.device_get(apply(params, images)).items():
            key = f"{name}/{grid[0]}x{grid[1]}/{stage}"
            assert output.shape == tuple(GOLDENS[f"{key}/shape"]), key
            found = output.reshape(-1)[GOLDENS[f"{key}/indices"]]
            error = np.abs(found - GOLDENS[f"{key}/values"]).max() / GOLDENS[f"{key}/max_abs"]
            assert error < TOLERANCE, key


@pytest.mark.parametrize("key", POSITIONS.files[2:])
def test_position_embeddings_are_resized_as_torch_does(key: str):
    how, grid = key.split("/")
    seeded = seeded_tensor("pos_embed", (1, 37**2, 3))
    spec = vit.SPECS["dinov2_vits14" if how == "factor" else "dinov2_vits14_reg"]
    height, width = map(int, grid.split("x"))
    found = vit.resized(jnp.asarray(seeded), (height, width), spec)
    assert found.shape == (1, height, width, 3)
    np.testing.assert_allclose(found.reshape(1, -1, 3), POSITIONS[key], rtol=0, atol=1e-6)


def test_a_position_embedding_at_its_own_grid_stays_as_it_is():
    seeded = seeded_tensor("pos_embed", (1, 37**2, 3))
    for name in ("dinov2_vits14", "dinov2_vits14_reg"):
        found = vit.resized(jnp.asarray(seeded), (37, 37), vit.SPECS[name])
        np.testing.assert_array_equal(found.reshape(seeded.shape), seeded)


def test_a_group_of_blocks_is_their_mean():
    name, stages = "vit_tiny_patch16_224", ("2", "3", "4", "2-4")
    backbone = backbones.get(name, stages)
    params = weights.convert(backbone, published(backbone), Path("seeded"))
    found = backbone.module.apply(params, seeded_images((2, 48, 32, 3)))
    assert set(found) == set(stages)
    mean = np.mean([found[stage] for stage in stages[:3]], 0)
    np.testing.assert_allclose(found["2-4"], mean, rtol=1e-5, atol=1e-5)


def test_blocks_after_the_last_are_not_loaded():
    backbone = backbones.get("vit_tiny_patch16_224", ("1",))
    whole = published(backbones.get("vit_tiny_patch16_224"))
    params = weights.convert(backbone, whole, Path("seeded"))
    assert {name for name in params["params"] if "blocks" in name} == {"blocks_0", "blocks_1"}


@pytest.mark.parametrize("name", ["dinov2_vits14_reg", "dinov2_vitg14"])
def test_the_layout_of_the_publishers_gives_the_same_weights(name: str):
    """DINOv2's own names, with a position for the class token, and a mask token."""
    backbone = backbones.get(name, ("0",))
    shapes = weights.expected(backbone)
    tensors = {key: seeded_tensor(key, shape) for key, shape in shapes.items()}
    own = seeded_tensor("own_token", tensors["cls_token"].shape)
    theirs = {
        key.replace("reg_token", "register_tokens")
        .replace("fc1", "w12" if name == "dinov2_vitg14" else "fc1")
        .replace("fc2", "w3" if name == "dinov2_vitg14" else "fc2"): tensor
        for key, tensor in tensors.items()
    }
    theirs["cls_token"] = tensors["cls_token"] - own
    theirs["pos_embed"] = np.concatenate([own, tensors["pos_embed"]], 1)
    theirs["mask_token"] = np.zeros((1, 384), np.float32)
    found = weights.select(backbone, theirs, Path("theirs"))
    assert set(found) == set(tensors)
    for key, tensor in found.items():
        np.testing.assert_allclose(tensor, tensors[key], rtol=0, atol=1e-6, err_msg=key)


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("12", "has no stage '12'; its blocks are 0 to 11"),
        ("3-12", "has no stage '3-12'"),
        ("7-4", "'7-4' is no stage of a transformer"),
        ("conv4_x", "'conv4_x' is no stage of a transformer; name a block, 7, or several, 4-7"),
    ],
)
def test_a_stage_that_there_is_not_is_an_input_error(stage: str, said: str):
    with pytest.raises(InputError, match=said):
        backbones.get("vit_tiny_patch16_224", (stage,))
