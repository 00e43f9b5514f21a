"""Vision transformers against timm, block by block, on seeded weights (goldens/make_timm.py)."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pfm_jax import backbones
from pfm_jax.backbones import vit, vit_layout, weights
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
    if (
        "pos_embed" in shapes and "reg_token" not in shapes
    ):  # the class token has a position of its own
        _, patches, width = shapes["pos_embed"]
        shapes["pos_embed"] = 1, 1 + patches, width
    if "rope_embed.periods" in shapes:
        shapes = in_timm(shapes, gated=backbone.name.endswith("plus"))
    return {key: seeded_tensor(key, shape) for key, shape in shapes.items()}


def in_timm(shapes: dict[str, tuple[int, ...]], gated: bool) -> dict[str, tuple[int, ...]]:
    """The names that DINOv3's tensors have in timm, where keys have no bias."""
    found: dict[str, tuple[int, ...]] = {}
    for key, shape in shapes.items():
        key = key.replace("ls1.gamma", "gamma_1").replace("ls2.gamma", "gamma_2")
        if key.endswith("qkv.bias"):
            parts = [key.replace("qkv.bias", f"{part}_bias") for part in "qv"]
            found |= dict.fromkeys(parts, (shape[0] // 3,))
        elif gated and "fc1" in key:
            parts = [key.replace("fc1", half) for half in ("fc1_g", "fc1_x")]
            found |= dict.fromkeys(parts, (shape[0] // 2, *shape[1:]))
        elif key != "rope_embed.periods":
            found[key] = shape
    return found


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


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "dinov2_vits14_reg"])
def test_the_class_token_of_the_same_blocks_is_subtracted(name: str) -> None:
    """Against the blocks' own tokens."""
    backbone, spec = backbones.get(name, ("0-1", "0-1-cls", "1-cls")), vit.SPECS[name]
    params = weights.convert(backbone, published(backbone), Path("seeded"))
    images = seeded_images((2, 4 * spec.patch, 3 * spec.patch, 3))
    found, seen = backbone.module.apply(
        params, images, capture_intermediates=lambda module, _: isinstance(module, vit.Block)
    )
    tokens = [
        np.asarray(seen["intermediates"][f"blocks_{index}"]["__call__"][0]) for index in (0, 1)
    ]
    less = [own[:, 1 + spec.registers :] - own[:, :1] for own in tokens]
    for stage, expected in (("1-cls", less[1]), ("0-1-cls", np.mean(less, 0))):
        np.testing.assert_allclose(found[stage].reshape(expected.shape), expected, atol=1e-5)
    assert not np.allclose(found["0-1"], found["0-1-cls"])


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
    ("name", "key", "shape"),
    [
        ("dinov2_vits14_reg", "cls_token", (1, 1, 8)),
        ("dinov2_vits14_reg", "cls_token", ()),
        ("dinov2_vits14_reg", "pos_embed", (1, 0, 384)),
        ("dinov3_vits16plus", "blocks.0.attn.qkv.weight", ()),
        ("dinov3_vits16plus", "blocks.0.attn.q_bias", ()),
        ("dinov3_vits16plus", "blocks.0.attn.qkv.bias_mask", (7,)),
        ("dinov3_vits16plus", "blocks.0.mlp.fc1_g.weight", ()),
    ],
)
def test_tensors_of_shapes_that_no_layout_has_are_refused(name: str, key: str, shape: tuple):
    backbone = backbones.get(name, ("0",))
    tensors = published(backbone) | {key: np.ones(shape, np.float32)}
    if "mask" in key:
        tensors["blocks.0.attn.qkv.bias"] = np.ones(3 * 384, np.float32)
    with pytest.raises(InputError, match=f"^w.pth: not the weights of {name}: "):
        weights.select(backbone, tensors, Path("w.pth"))


def test_a_bias_that_is_missing_is_not_taken_for_zero():
    """But in timm's layout without any: the publishers' are all zero."""
    backbone = backbones.get("dinov3_vits16", ("0", "1"))
    tensors = published(backbone)
    biases = [key for key in tensors if key.endswith(("q_bias", "v_bias"))]
    none = {key: tensor for key, tensor in tensors.items() if key not in biases}
    assert not weights.select(backbone, none, Path("w"))["blocks.1.attn.qkv.bias"].any()
    for key in ("blocks.0.attn.v_bias", "blocks.1.attn.q_bias"):
        some = {k: tensor for k, tensor in tensors.items() if k != key}
        with pytest.raises(InputError, match=r"missing blocks.\d.attn.qkv.bias"):
            weights.select(backbone, some, Path("w"))


def test_dinov3_in_the_layout_of_its_publishers():
    """Its bias of keys is masked out, its periods are rounded to bfloat16, its gates are w1, w2."""
    backbone = backbones.get("dinov3_vits16plus", ("0",))
    shapes = weights.expected(backbone)
    tensors = {key: seeded_tensor(key, shape) for key, shape in shapes.items() if "rope" not in key}
    rounded = np.asarray(jnp.asarray(vit_layout.periods(64), jnp.bfloat16), np.float32)
    tensors["rope_embed.periods"] = rounded
    theirs = {key.replace("reg_token", "storage_tokens"): t for key, t in tensors.items()}
    key, masked = "blocks.0.attn.qkv.bias", slice(384, 768)
    theirs["blocks.0.attn.qkv.bias_mask"] = np.ones(3 * 384, np.float32)
    theirs["blocks.0.attn.qkv.bias_mask"][masked] = 0
    theirs[key] = theirs[key].copy()
    theirs[key][masked], tensors[key][masked] = np.nan, 0
    for leaf in ("weight", "bias"):
        halves = np.split(theirs.pop(f"blocks.0.mlp.fc1.{leaf}"), 2)
        theirs[f"blocks.0.mlp.w1.{leaf}"], theirs[f"blocks.0.mlp.w2.{leaf}"] = halves
        theirs[f"blocks.0.mlp.w3.{leaf}"] = theirs.pop(f"blocks.0.mlp.fc2.{leaf}")
    found = weights.select(backbone, theirs, Path("theirs"))
    assert set(found) == set(tensors)
    for name, tensor in found.items():
        np.testing.assert_array_equal(tensor, tensors[name], err_msg=name)


@pytest.mark.parametrize(
    ("stage", "said"),
    [
        ("12", "has no stage '12'; its blocks are 0 to 11"),
        ("3-12", "has no stage '3-12'"),
        ("7-4", "'7-4' is no stage of a transformer"),
        ("3-12-cls", "has no stage '3-12-cls'"),
        ("4-cls-7", "'4-cls-7' is no stage of a transformer"),
        ("conv4_x", "'conv4_x' is no stage of a transformer; name a block, 7, or several, 4-7"),
    ],
)
def test_a_stage_that_there_is_not_is_an_input_error(stage: str, said: str):
    with pytest.raises(InputError, match=said):
        backbones.get("vit_tiny_patch16_224", (stage,))
