"""The library's face: the same numbers as the launchers', whatever way the images come."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

import pfm_jax
from pfm_jax import array_file, scoring
from pfm_jax.config import Config
from pfm_jax.detector import Detector
from pfm_jax.run import Sources, train_categories
from pfm_jax.types import InputError
from tests.synthetic import make_category, make_weights, small_config, texture


def config(**train: object) -> Config:
    found = small_config(**train)
    return dataclasses.replace(found, data=dataclasses.replace(found.data, held_out=0.5))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    place = tmp_path_factory.mktemp("detector")
    make_category(place / "data" / "grid", good=40)
    make_weights(place / "weights", "resnet18", "resnet18_caffe")
    return Sources(str(place / "data"), str(place / "weights"))


@pytest.fixture(scope="module")
def detector(sources: Sources) -> Detector:
    images = Path(str(sources.data_dir), "grid", "train", "good")
    return Detector.fit(images, config(), sources.weights_dir)


def test_fit_is_what_the_launcher_trains(
    sources: Sources, detector: Detector, tmp_path: Path
) -> None:
    """The same scores to the last bit, from memory, from the run's folder and in its table."""
    found = train_categories(config(), sources, "grid", tmp_path)["grid"]
    with (tmp_path / "grid" / "scores.csv").open() as rows:
        table = {row["path"]: np.float32(row["score"]) for row in csv.DictReader(rows)}
    files = [Path(str(sources.data_dir), "grid", path) for path in table]
    scores, maps = detector.score(files)
    np.testing.assert_array_equal(scores, list(table.values()))
    restored = Detector.from_run(tmp_path, "grid")
    np.testing.assert_array_equal(restored.normal_scores, detector.normal_scores)
    again, same_maps = restored.score(files)
    np.testing.assert_array_equal(again, scores)
    np.testing.assert_array_equal(np.stack(same_maps), np.stack(maps))
    assert found["counts"]["held_out"] == len(detector.normal_scores) == 20
    prediction = detector.predict(files)
    decided = found["decisions"]
    assert decided["threshold" if "threshold" in decided else "value"] == prediction.threshold.value
    labels = np.array(["hole" in path for path in table])
    assert decided["recall"] == prediction.is_anomalous[labels].mean() == 1
    assert decided["false_positives"] == prediction.is_anomalous[~labels].mean()


def test_saved_and_loaded_it_is_the_same(detector: Detector, tmp_path: Path) -> None:
    detector.save(tmp_path / "grid.detector")
    loaded = pfm_jax.Detector.load(tmp_path / "grid.detector")
    images = np.stack([texture(seed) for seed in range(11)])
    for ours, theirs in zip(detector.score(images), loaded.score(images), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert loaded.config == detector.config
    assert loaded.scorer().fingerprint == detector.scorer().fingerprint
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
    for same in (list(colours), tmp_path, str(tmp_path / "*.png"), sorted(tmp_path.iterdir())):
        np.testing.assert_array_equal(detector.score(same)[0], scores)
    for same in (colours / np.float32(255), colours.astype(np.uint16) * 257):
        np.testing.assert_array_equal(detector.score(same)[0], scores)
    with_alpha = np.concatenate([colours, colours[..., :1]], -1)
    np.testing.assert_array_equal(detector.score(with_alpha)[0], scores)
    grey = colours[..., 0]
    expected = detector.score(np.repeat(grey[..., None], 3, -1))[0]
    np.testing.assert_array_equal(detector.score(grey)[0], expected)
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
    assert scores[0] == maps.max()


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((60, 60, 3), np.uint8), r"one image\? give images\[None\]"),
        (np.zeros((60, 60), np.uint8), r"must be \[N, H, W"),
        (np.zeros((2, 60, 60, 5), np.uint8), r"images\[0\] has shape \(60, 60, 5\)"),
        (np.zeros((2, 60, 60, 3), np.int64), r"images\[0\] is int64"),
        (np.full((2, 60, 60, 3), 2.0), r"images\[0\]: numbers of float64 must be from 0 to 1"),
        (np.full((2, 60, 60, 3), np.nan), r"images\[0\]: numbers"),
        ([texture(0), np.zeros((0, 4), np.uint8)], r"images\[1\] has shape \(0, 4\)"),
        (np.zeros((1, 60, 2, 3), np.uint8), r"images\[0\]: is 2x60 pixels"),
        ("nowhere", "images=nowhere: no image there"),
        (["nowhere.png"], r"nowhere\.png: No such file"),
        ([], "no images"),
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


def test_normal_images_of_the_users_own_set_the_threshold(sources: Sources) -> None:
    folder = Path(str(sources.data_dir), "grid")
    found = Detector.fit(
        folder / "train" / "good",
        config(steps=2),
        sources.weights_dir,
        normal=folder / "test" / "good",
    )
    np.testing.assert_array_equal(found.normal_scores, found.score(folder / "test" / "good")[0])
    assert found.origin["num_images"] == 40


def test_an_unfinished_run_is_no_detector(sources: Sources, tmp_path: Path) -> None:
    train_categories(config(steps=20), sources, "grid", tmp_path)
    results = tmp_path / "grid" / "metrics.json"
    Detector.from_run(tmp_path, "grid")
    results.write_text(results.read_text().replace('"step": 20', '"step": 10'))
    with pytest.raises(InputError, match="not finished"):  # trained on, not yet evaluated
        Detector.from_run(tmp_path, "grid")
    shutil.rmtree(tmp_path / "grid" / "checkpoints" / "20")
    with pytest.raises(InputError, match="not finished"):
        Detector.from_run(tmp_path, "grid")
    with pytest.raises(InputError, match="no run in it"):
        Detector.from_run(tmp_path, "tile")


def test_tiles_from_end_to_end(sources: Sources, tmp_path: Path) -> None:
    """Trained on four tiles of each image, scored on nine; every kind of training takes them."""
    for sampling in ("positions", "images"):
        recipe = config(steps=4, sampling=sampling, epochs=1, batch_size=16)
        data = dataclasses.replace(
            recipe.data, image_size=128, tile_size=64, tile_overlap=32, held_out=0.75
        )
        recipe = dataclasses.replace(recipe, data=data)
        found = train_categories(recipe, sources, "grid", tmp_path / sampling)["grid"]
        assert found["step"] == (4 if sampling == "positions" else 3)  # 10 images of 4 tiles by 16
        detector = Detector.from_run(tmp_path / sampling, "grid")
        assert len(detector.normal_scores) == 30
        _, maps = detector.score(texture(0, 200)[None])
        assert maps[0].shape == (200, 200)
        detector.save(tmp_path / "tiles.detector")
        assert Detector.load(tmp_path / "tiles.detector").config.data.tile_size == 64


def test_a_score_that_is_not_finite_names_the_image(detector: Detector) -> None:
    heads = jax.tree.map(lambda x: x, detector.heads)
    kernel, bias = heads.layers["conv3_x"]["forward"][0]
    heads.layers["conv3_x"]["forward"][0] = (kernel * np.nan, bias)
    with pytest.raises(InputError, match=r"images\[0\]: its score is not finite"):
        dataclasses.replace(detector, heads=heads).score(texture(0)[None])


def test_a_detector_of_another_version(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "old.detector"
    with_more = dataclasses.asdict(detector.config) | {"scoring": {"precision": "auto"}}
    about = {"config": with_more, "networks": ("resnet18", "resnet18_caffe"), "origin": {}}
    array_file.write(path, {"normal_scores": detector.normal_scores}, about)
    with pytest.raises(InputError, match=r"old\.detector: of another version of pfm_jax; make it"):
        Detector.load(path)
