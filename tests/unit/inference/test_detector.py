"""A detector: kept and loaded, and the images that it takes."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

import pfm_jax
from pfm_jax.inference.detector import Detector, score_batch
from pfm_jax.model import scoring
from pfm_jax.system import arrays as array_file
from pfm_jax.types import InputError, Sources
from tests.synthetic import texture


def test_saved_and_loaded_it_is_the_same(detector: Detector, tmp_path: Path) -> None:
    detector.save(tmp_path / "grid.detector")
    loaded = pfm_jax.Detector.load(tmp_path / "grid.detector")
    images = np.stack([texture(seed) for seed in range(11)])
    for ours, theirs in zip(detector.score(images), loaded.score(images), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert loaded.config == detector.config
    assert loaded.scorer().fingerprint() == detector.scorer().fingerprint()
    assert str(tmp_path).encode() not in (tmp_path / "grid.detector").read_bytes()
    assert b"/weights" not in (tmp_path / "grid.detector").read_bytes()


@pytest.mark.parametrize("fault", ["cut", "bit", "text", "other", "none", "name"])
def test_files_that_are_no_detector(fault: str, detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "grid.detector"
    detector.save(path)
    content = bytearray(path.read_bytes())
    if fault == "cut":
        path.write_bytes(content[:-100])
    elif fault == "bit":
        content[-100] ^= 1
        path.write_bytes(content)
    elif fault == "text":
        path.write_text("not a detector")
    elif fault == "other":
        safetensors.numpy.save_file({"a": np.zeros(3)}, path)
    elif fault == "none":
        path.unlink()
    else:
        path.write_bytes(content.replace(b"resnet18_caffe", b"resnet34_caffe"))
    with pytest.raises(InputError, match=r"grid\.detector: "):
        Detector.load(path)


Arrays = dict[str, np.ndarray]
HARM: dict[str, Callable[[Arrays], Arrays]] = {
    "missing": lambda held: {k: v for k, v in held.items() if k != "model/memory"},
    "smaller": lambda held: {**held, "model/memory": held["model/memory"][:, :1]},
    "doubles": lambda held: {**held, "model/memory": held["model/memory"].astype(np.float64)},
}


@pytest.mark.parametrize("harm", HARM)
def test_arrays_that_are_not_the_recipes_are_refused(
    harm: str, detector: Detector, tmp_path: Path
) -> None:
    path = tmp_path / "grid.detector"
    detector.save(path)
    held, about = array_file.read(path)
    array_file.write(path, HARM[harm](held), about)
    with pytest.raises(InputError, match=r"grid\.detector: .*; first difference: model/memory"):
        Detector.load(path)


def test_images_of_any_kind_and_size(detector: Detector, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (5, 90, 70, 3), dtype=np.uint8)
    scores, maps = detector.score(colours)
    assert scores.shape == (5,) and scores.dtype == np.float32
    assert [m.shape for m in maps] == [(90, 70)] * 5 and maps[0].dtype == np.float32
    one_by_one = np.concatenate([detector.score(image[None])[0] for image in colours])
    np.testing.assert_allclose(one_by_one, scores, atol=1e-5)
    for index, image in enumerate(colours):
        Image.fromarray(image).save(tmp_path / f"{index}.png")
    files = sorted(tmp_path.iterdir())
    for same in (
        *(list(colours), tmp_path, str(tmp_path / "*.png"), files),
        *(jnp.asarray(colours), list(jnp.asarray(colours)), (image for image in colours)),
        *([Image.fromarray(image) for image in colours], map(Image.open, files)),
        *([str(tmp_path / "[01].png"), *files[2:4], Image.fromarray(colours[4])], [tmp_path]),
    ):
        np.testing.assert_array_equal(detector.score(same)[0], scores)
    for same in (colours / np.float32(255), colours.astype(np.uint16) * 257):
        np.testing.assert_array_equal(detector.score(same)[0], scores)
    with_alpha = np.concatenate([colours, colours[..., :1]], -1)
    np.testing.assert_array_equal(detector.score(with_alpha)[0], scores)
    grey = colours[..., 0]
    expected = detector.score(np.repeat(grey[..., None], 3, -1))[0]
    np.testing.assert_array_equal(detector.score(grey)[0], expected)
    alone = detector.score(Image.fromarray(colours[0]))[0]
    np.testing.assert_array_equal(alone, one_by_one[:1])
    mixed, sizes = detector.score([grey[0], colours[1, :33], tmp_path / "2.png"])
    assert mixed[2] == scores[2]
    assert [m.shape for m in sizes] == [(90, 70), (33, 70), (90, 70)]


def test_maps_at_the_images_size_are_bilinear(detector: Detector) -> None:
    image = texture(0, 150)[None]
    small = detector.scorer().score_batch
    scores, (full,) = detector.score(image)
    resized = np.asarray(Image.fromarray(image[0]).resize((64, 64), Image.Resampling.LANCZOS))
    _, maps = small(resized[None])
    np.testing.assert_allclose(full, scoring.upsample(maps, 150, 150)[0], atol=1e-5)
    exponent = detector.config.scoring.sharpness
    powers = np.asarray(maps, np.float64) ** exponent
    np.testing.assert_allclose(scores[0], powers.mean() ** (1 / exponent), 1e-5)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((60, 60, 3), np.uint8), r"pass one image as images\[None\]"),
        (np.zeros((60, 60), np.uint8), r"must be \[N, H, W"),
        (np.zeros((2, 60, 60, 5), np.uint8), r"images\[0\] has shape \(60, 60, 5\)"),
        (np.zeros((2, 60, 60, 3), np.int64), r"images\[0\] is int64"),
        (np.full((2, 60, 60, 3), 2.0), r"images\[0\]: float64 values must be from 0 to 1"),
        (np.full((2, 60, 60, 3), np.nan), r"images\[0\]: float64 values must be from 0 to 1"),
        ([texture(0), np.zeros((0, 4), np.uint8)], r"images\[1\] has shape \(0, 4\)"),
        (np.zeros((1, 60, 2, 3), np.uint8), r"images\[0\]: is 2x60 pixels"),
        ("nowhere", "images=nowhere: no image found"),
        (["nowhere.png"], r"nowhere\.png: No such file"),
        ([], "no images"),
        (iter(()), "no images"),
        (None, "images of type NoneType: must be a folder, file, glob, array or PIL image"),
        (3, "images of type int: must be a folder"),
        (b"image.png", "images of type bytes: must be a folder"),
        ({"image": texture(0)}, "images of type dict: must be a folder"),
        ([{"image": texture(0)}], r"images\[0\] of type dict: must be a folder"),
        ([texture(0), None], r"images\[1\] of type NoneType: must be a folder"),
        ([[texture(0)]], r"images\[0\] of type list: must be a folder"),
        (jnp.zeros((60, 60, 3)), r"pass one image as images\[None\]"),
        ([texture(0), "nowhere/*.png"], r"images=nowhere/\*\.png: no image found"),
    ],
)
def test_what_is_no_image(images: object, message: str, detector: Detector) -> None:
    with pytest.raises(InputError, match=message):
        detector.score(images)


def test_a_threshold_needs_enough_normal_images(detector: Detector) -> None:
    image = texture(0)[None]
    with pytest.raises(InputError, match="needs 99 normal images"):
        detector.predict(image, false_positive_rate=0.01)
    found = detector.predict(image, false_positive_rate=0.5)
    assert found.is_anomalous[0] == (found.p_values[0] <= 0.5)


def test_without_frozen_weights_it_wants_the_same_ones(
    sources: Sources, detector: Detector, tmp_path: Path
) -> None:
    """The file is small, and other weights of that name are refused."""
    path = tmp_path / "small.detector"
    detector.save(path, networks=False)
    arrays, about = array_file.read(path)
    assert about["networks"] is None
    assert {name.split("/")[0] for name in arrays} == {"model", "normal_scores"}
    loaded = Detector.load(path, sources.weights_dir)
    assert loaded.fingerprint == detector.fingerprint
    images = np.stack([texture(seed) for seed in range(3)])
    np.testing.assert_array_equal(loaded.score(images)[0], detector.score(images)[0])
    with pytest.raises(InputError, match="resnet18"):
        Detector.load(path, str(tmp_path))
    weights = Path(shutil.copytree(str(sources.weights_dir), tmp_path / "weights"))
    tensors = safetensors.numpy.load_file(weights / "resnet18.safetensors")
    tensors["conv1.weight"] = tensors["conv1.weight"] * 1.01
    safetensors.numpy.save_file(tensors, weights / "resnet18.safetensors")
    with pytest.raises(
        InputError, match=r"small\.detector: made with other weights of resnet18; set --weights_dir"
    ):
        Detector.load(path, str(weights))


def test_it_is_frozen_and_a_pytree_of_arrays(detector: Detector) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        detector.model = {}  # type: ignore[misc]
    leaves, structure = jax.tree.flatten(detector)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    same = jax.tree.unflatten(structure, leaves)
    assert same.config == detector.config and same.fingerprint == detector.fingerprint
    image = texture(0)[None]
    np.testing.assert_array_equal(
        score_batch(detector, image).image_scores, detector.score(image)[0]
    )


def test_a_score_that_is_not_finite_names_the_image(detector: Detector) -> None:
    broken = dataclasses.replace(detector, model=jax.tree.map(lambda x: x * np.nan, detector.model))
    with pytest.raises(InputError, match=r"images\[0\]: its score is not finite"):
        broken.score(texture(0)[None])


def test_a_detector_of_another_version(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "old.detector"
    with_more = dataclasses.asdict(detector.config) | {"scoring": {"precision": "auto"}}
    about = {"config": with_more, "networks": ("resnet18", "resnet18_caffe"), "origin": {}}
    array_file.write(path, {"normal_scores": detector.normal_scores}, about)
    with pytest.raises(InputError, match=r"old\.detector: of another version of pfm_jax; make it"):
        Detector.load(path)
