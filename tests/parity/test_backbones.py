"""Every network against PyTorch, level by level, on seeded weights (goldens/make_goldens.py)."""

from __future__ import annotations

import functools
from pathlib import Path

import jax
import numpy as np
import pytest

from pfm_jax import backbones
from pfm_jax.backbones import weights
from pfm_jax.types import LEVELS, STRIDES, InputError
from tests.parity.goldens.seeded import seeded_images, seeded_tensor

GOLDENS = np.load(Path(__file__).parent / "goldens" / "backbones.npz")
# Of the largest magnitude of a level.
TOLERANCE = 1e-5

NAMES = (*backbones.resnet.NAMES, *backbones.vgg.NAMES, *backbones.efficientnet_lite.NAMES)
SIZES = ((256, 256), (200, 152))
VGG_LEVELS = {  # indices into torchvision's `features`: relu3_3, relu4_3, relu5_3 (VGG19: _4)
    "vgg16": (15, 22, 29),
    "vgg19": (17, 26, 35),
    "vgg16_bn": (22, 32, 42),
    "vgg19_bn": (25, 38, 51),
}
ODD_SIZE, ODD_NAMES = (129, 97), ("resnet50", "resnet50_caffe", "efficientnet_lite0")
CASES = [
    pytest.param(name, size, id=f"{name}-{size[0]}x{size[1]}")
    for name in NAMES
    for size in ((*SIZES, ODD_SIZE) if name in ODD_NAMES else SIZES)
]
CHANNELS = {
    "resnet18": (64, 128, 256),
    "resnet34": (64, 128, 256),
    "resnet50": (256, 512, 1024),
    "resnet101": (256, 512, 1024),
    "wide_resnet50_2": (256, 512, 1024),
    **dict.fromkeys(backbones.vgg.NAMES, (256, 512, 512)),
    "efficientnet_lite0": (24, 40, 112),
    "efficientnet_lite1": (24, 40, 112),
    "efficientnet_lite2": (24, 48, 120),
}


def seeded_params(name: str) -> weights.Params:
    """The Flax variables of the network that the golden script filled."""
    backbone = backbones.get(name)
    tensors = {k: seeded_tensor(k, shape) for k, shape in weights.expected(backbone).items()}
    return weights.convert(backbone, tensors, Path("seeded"))


@functools.cache
def features(name: str, size: tuple[int, int]) -> dict[str, np.ndarray]:
    """The levels of the seeded network for the seeded image of that size."""
    apply = jax.jit(backbones.get(name).module.apply)
    return jax.device_get(apply(seeded_params(name), seeded_images((1, *size, 3))))


def error(array: np.ndarray, key: str) -> float:
    """Largest difference from the golden `key`, in samples and channel means, of its maximum."""
    samples = array.reshape(-1)[GOLDENS[f"{key}/indices"]] - GOLDENS[f"{key}/values"]
    means = array.mean((0, 1, 2), dtype=np.float64) - GOLDENS[f"{key}/means"]
    return max(np.abs(samples).max(), np.abs(means).max()) / GOLDENS[f"{key}/max_abs"]


def test_the_seeded_stream_is_that_of_the_goldens():
    np.testing.assert_array_equal(seeded_images((8,)), GOLDENS["probe"])


@pytest.mark.parametrize(("name", "size"), CASES)
def test_levels_agree_with_torch(name: str, size: tuple[int, int]):
    outputs = features(name, size)
    assert tuple(outputs) == LEVELS
    for level, output in outputs.items():
        key = f"{name}/{size[0]}x{size[1]}/{level}"
        assert output.shape == tuple(GOLDENS[f"{key}/shape"]), key
        assert error(output, key) < TOLERANCE, key


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("arch", ["resnet18", "resnet50"])
def test_the_other_stride_style_disagrees(arch: str, level: str):
    output = features(f"{arch}_caffe", (256, 256))[level]
    assert error(output, f"{arch}_caffe/256x256/{level}") < TOLERANCE
    assert error(output, f"{arch}/256x256/{level}") > 1e3 * TOLERANCE


@pytest.mark.parametrize("name", NAMES)
def test_parameter_count_is_that_of_torch(name: str):
    shapes = weights.expected(backbones.get(name))
    count = sum(np.prod(shape) for key, shape in shapes.items() if "running" not in key)
    assert count == GOLDENS[f"{name}/parameters"]


@pytest.mark.parametrize("name", NAMES)
def test_strides_and_channels(name: str):
    backbone = backbones.get(name)
    images = jax.ShapeDtypeStruct((2, 64, 96, 3), np.float32)
    pyramid, _ = jax.eval_shape(backbone.module.init_with_output, jax.random.key(0), images)
    channels = CHANNELS[name.removesuffix("_caffe")]
    for level, count in zip(LEVELS, channels, strict=True):
        stride = STRIDES[level]
        assert pyramid[level].shape == (2, 64 // stride, 96 // stride, count)


@pytest.mark.parametrize("name", backbones.vgg.NAMES)
def test_levels_of_vgg_are_the_relus_before_the_last_three_poolings(name: str):
    """Against torchvision's list of modules; so are the indices of all the convolutions."""
    layers, indices = GOLDENS[f"{name}/layers"].tolist(), VGG_LEVELS[name]
    poolings = [index for index, kind in enumerate(layers) if kind == "MaxPool2d"]
    assert list(indices) == [index - 1 for index in poolings[-3:]]
    assert all(layers[index] == "ReLU" for index in indices)
    convolutions = [f"features.{i}.weight" for i, kind in enumerate(layers) if kind == "Conv2d"]
    norms = [f"features.{i}.running_mean" for i, kind in enumerate(layers) if kind.startswith("B")]
    expected = weights.expected(backbones.get(name))
    assert [key for key, shape in expected.items() if len(shape) == 4] == convolutions
    assert [key for key in expected if key.endswith("running_mean")] == norms


def test_an_unknown_name_is_an_input_error():
    with pytest.raises(InputError, match="resnet18"):
        backbones.get("resnet19")
