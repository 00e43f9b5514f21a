"""STFPM's student against torchvision's ResNet18 in torch (tests/parity/goldens/student.npz)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pfm_jax.baselines import stfpm
from pfm_jax.baselines.stfpm import Imitation
from pfm_jax.baselines.student import Student, convolve
from pfm_jax.methods import IMAGES, Stfpm
from pfm_jax.model import scoring
from pfm_jax.model.features import l2_normalize
from pfm_jax.types import LEVELS, Batch, Pair
from tests.parity.goldens.seeded import seeded_bytes, seeded_images, seeded_tensor

GOLDEN = np.load(Path(__file__).parent / "goldens" / "student.npz")
SHAPES = {"conv2_x": (3, 64, 16, 16), "conv3_x": (3, 128, 8, 8), "conv4_x": (3, 256, 4, 4)}
OBJECTIVE = stfpm.objective(Stfpm(), "resnet18", 64)
KEY = jax.random.key(0)
LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
CONVS = {"first": "conv1", "second": "conv2", "shortcut": "downsample.0"}
NORMS = {"first": "bn1", "second": "bn2", "shortcut": "downsample.1"}


def torch_name(path: Any) -> str:
    """Ours (`stages/conv3_x/0/shortcut/norm/mean`) -> torchvision's."""
    *place, last = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
    leaf = LEAVES.get(last, last)
    if place[0] == "stem":
        return f"{'conv1' if last == 'kernel' else 'bn1'}.{leaf}"
    names = CONVS if last == "kernel" else NORMS
    return f"layer{1 + LEVELS.index(place[1])}.{place[2]}.{names[place[3]]}.{leaf}"


def from_torch(array: np.ndarray) -> np.ndarray:
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array


@pytest.fixture(scope="module")
def student() -> Student:
    """The student that torch began with."""

    def value(path: Any, leaf: jax.Array) -> jax.Array:
        shape = (*leaf.shape[:1:-1], *leaf.shape[:2]) if leaf.ndim == 4 else leaf.shape
        return jnp.asarray(from_torch(seeded_tensor(torch_name(path), shape)))

    fresh = jax.eval_shape(OBJECTIVE.init, jax.random.key(0))[IMAGES]
    found: Student = jax.tree_util.tree_map_with_path(value, fresh)
    return found


def targets() -> dict[str, jax.Array]:
    found = {k: seeded_images(shape).transpose(0, 2, 3, 1) for k, shape in SHAPES.items()}
    return {stage: l2_normalize(jnp.asarray(array)) for stage, array in found.items()}


def batch(padding: int = 0) -> Batch:
    """The three images and their targets, and some that do not count."""
    pixels = np.stack([seeded_bytes((64, 64, 3), seed) for seed in range(3)]).reshape(3, -1)
    flat = jnp.concatenate([array.reshape(3, -1) for array in targets().values()], 1)
    rows = Pair(jnp.asarray(pixels, jnp.float32), flat)
    padded = jax.tree.map(lambda x: jnp.concatenate([x, x[:1].repeat(padding, 0)]), rows)
    return Batch({IMAGES: padded}, {IMAGES: jnp.array([1.0] * 3 + [0.0] * padding)})


def assert_close(ours: jax.Array, golden: np.ndarray, tolerance: float = 2e-5) -> None:
    scale = max(float(abs(golden).max()), 1e-12)
    np.testing.assert_allclose(ours, golden, rtol=0, atol=tolerance * scale)


@pytest.mark.parametrize("padding", [0, 2])
def test_loss_gradients_and_statistics_are_torchs(student: Student, padding: int) -> None:
    """The batch may be padded."""
    given = batch(padding)

    def loss(student: Student) -> tuple[jax.Array, Student]:
        total, (_, after) = OBJECTIVE.loss({IMAGES: student}, given, KEY)
        return total, after[IMAGES]

    (total, after), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(student)
    np.testing.assert_allclose(total, GOLDEN["loss"], rtol=1e-5)
    checked = 0
    for tree, kind in ((gradients, "grad"), (after, "after")):
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            if (key := f"{kind}/{torch_name(path)}") in GOLDEN:
                ours = np.asarray(leaf)
                ours = ours.transpose(3, 2, 0, 1) if ours.ndim == 4 else ours
                assert_close(ours.reshape(-1)[:500], GOLDEN[key], 1e-4)
                checked += 1
    assert checked == 10


def test_maps_are_torchs(student: Student) -> None:
    """The product of the stages' distances, with the statistics that a step has left."""
    given = batch()
    _, (_, after) = OBJECTIVE.loss({IMAGES: student}, given, KEY)
    pixels = given.features[IMAGES].source.reshape(3, 64, 64, 3)
    found, _ = OBJECTIVE.unit(after[IMAGES], pixels)
    product = jnp.ones((3, 64, 64))
    for stage, target in targets().items():
        product *= scoring.upsample(stfpm.half_squares(found[stage], target), 64, 64)
    assert_close(product, GOLDEN["maps"], 1e-4)


def test_both_convolutions_are_one() -> None:
    """The one of CPUs, and the one of accelerators, which runs here too."""
    x = jnp.asarray(seeded_images((2, 9, 11, 4)))
    for side, stride in ((1, 2), (3, 1), (3, 2), (7, 2)):
        kernel = jnp.asarray(seeded_tensor("x.weight", (side, side, 4, 5)))
        there = jax.lax.conv_general_dilated(
            x,
            kernel,
            (stride, stride),
            ((side // 2,) * 2,) * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision="highest",
        )
        np.testing.assert_allclose(convolve(x, kernel, stride), there, atol=1e-5)


def test_a_student_of_fewer_stages_is_smaller() -> None:
    small: Imitation = dataclasses.replace(OBJECTIVE, stages=("conv2_x", "conv3_x"))
    assert [*small.init(jax.random.key(0))[IMAGES].stages] == ["conv2_x", "conv3_x"]
