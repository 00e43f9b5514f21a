"""The library's face: the same numbers as the launchers', whatever way the images come."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

import pfm_jax
from pfm_jax.config import Config, Sources
from pfm_jax.inference.detector import Detector, score_batch
from pfm_jax.model import scoring
from pfm_jax.runs import train as group
from pfm_jax.runs.fit import fit
from pfm_jax.runs.run import load_detector
from pfm_jax.runs.train import train_categories
from pfm_jax.serving.batch import predict
from pfm_jax.sweeps.plan import replaced
from pfm_jax.system import arrays as array_file
from pfm_jax.system import devices
from pfm_jax.training import loop
from pfm_jax.types import InputError
from tests.synthetic import make_category, make_weights, small_config, texture


def config(**train: object) -> Config:
    return replaced(small_config(**train), {"data.held_out": 0.5})


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    place = tmp_path_factory.mktemp("detector")
    make_category(place / "data" / "grid", good=40)
    make_weights(place / "weights", "resnet18", "resnet18_caffe")
    return Sources(str(place / "data"), str(place / "weights"))


@pytest.fixture(scope="module")
def detector(sources: Sources) -> Detector:
    images = Path(str(sources.data_dir), "grid", "train", "good")
    return fit(images, config(), sources.weights_dir)


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
    restored = load_detector(tmp_path, "grid")
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
        (iter(()), "no images"),
        (None, "images is a NoneType: must be a folder, a file, a glob, an array, a PIL image"),
        (3, "images is a int: must be a folder"),
        (b"image.png", "images is a bytes: must be a folder"),
        ({"image": texture(0)}, "images is a dict: must be a folder"),
        ([{"image": texture(0)}], r"images\[0\] is a dict: must be a folder"),
        ([texture(0), None], r"images\[1\] is a NoneType: must be a folder"),
        ([[texture(0)]], r"images\[0\] is a list: must be a folder"),
        (jnp.zeros((60, 60, 3)), r"one image\? give images\[None\]"),
        ([texture(0), "nowhere/*.png"], r"images=nowhere/\*\.png: no image there"),
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
    found = fit(
        folder / "train" / "good",
        config(steps=2),
        sources.weights_dir,
        normal=folder / "test" / "good",
    )
    np.testing.assert_array_equal(found.normal_scores, found.score(folder / "test" / "good")[0])
    assert found.record.origin["num_images"] == 40


def test_an_unfinished_run_is_no_detector(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it was never finished, or goes on from before its last step."""

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_save", killed)
        with pytest.raises(KeyboardInterrupt):
            train_categories(config(steps=20), sources, "grid", tmp_path)
        with pytest.raises(InputError, match="not finished"):  # not one checkpoint
            load_detector(tmp_path, "grid")
    with monkeypatch.context() as patch:
        patch.setattr(group, "make_detector", killed)
        with pytest.raises(KeyboardInterrupt):
            train_categories(config(steps=20), sources, "grid", tmp_path)
        with pytest.raises(InputError, match="not finished"):  # trained, not yet a detector
            load_detector(tmp_path, "grid")
    train_categories(config(steps=20), sources, "grid", tmp_path)
    _, before = array_file.read(tmp_path / "grid" / "detector.safetensors")
    load_detector(tmp_path, "grid")
    shutil.rmtree(tmp_path / "grid" / "checkpoints" / "20")
    with monkeypatch.context() as patch:
        patch.setattr(loop, "_save", killed)
        with pytest.raises(KeyboardInterrupt):
            train_categories(config(steps=20), sources, "grid", tmp_path)
    with pytest.raises(InputError, match="not finished"):  # an older state than the file's
        load_detector(tmp_path, "grid")
    train_categories(config(steps=20), sources, "grid", tmp_path)
    assert array_file.read(tmp_path / "grid" / "detector.safetensors")[1] == before
    with pytest.raises(InputError, match="no run in it"):
        load_detector(tmp_path, "tile")


def test_a_run_is_loaded_without_its_checkpoints_and_tables(
    sources: Sources, tmp_path: Path
) -> None:
    train_categories(config(steps=10), sources, "grid", tmp_path)
    images = texture(0)[None]
    before = load_detector(tmp_path, "grid")
    kept = {"run.json", "detector.safetensors"}
    for path in (tmp_path / "grid").iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.name not in kept:
            path.unlink()
    after = load_detector(tmp_path, "grid")
    assert after.fingerprint == before.fingerprint
    np.testing.assert_array_equal(after.normal_scores, before.normal_scores)
    np.testing.assert_array_equal(after.score(images)[0], before.score(images)[0])


def test_without_frozen_weights_it_wants_the_same_ones(
    sources: Sources, detector: Detector, tmp_path: Path
) -> None:
    """The file is small, and other weights of that name are refused."""
    path = tmp_path / "small.detector"
    detector.save(path, networks=False)
    arrays, about = array_file.read(path)
    assert about["networks"] is None
    assert {name.split("/")[0] for name in arrays} == {"heads", "normal_scores"}
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


def test_a_second_detector_of_a_recipe_compiles_nothing_new(
    sources: Sources, detector: Detector, tmp_path: Path
) -> None:
    """However it came: trained on other images, loaded with or without the frozen weights."""
    other = fit(
        Path(str(sources.data_dir), "grid", "test", "good"),
        replaced(config(), {"seed": 1, "data.held_out": 0.4, "name": "other"}),
        sources.weights_dir,
    )
    detector.save(tmp_path / "whole.detector")
    detector.save(tmp_path / "small.detector", networks=False)
    loaded = [
        Detector.load(tmp_path / "whole.detector"),
        Detector.load(tmp_path / "small.detector", sources.weights_dir),
    ]
    images = np.stack([texture(seed) for seed in range(9)])  # a batch of eight, and one of one
    expected, _ = detector.score(images)
    compiled: list[str] = []

    def listen(event: str, duration: float, **_: object) -> None:
        if event.endswith(("backend_compile_duration", "jaxpr_trace_duration")):
            compiled.append(event)

    programs = score_batch._cache_size()
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        scores, _ = other.score(images)
        for one in loaded:
            np.testing.assert_array_equal(one.score(images)[0], expected)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert not compiled and score_batch._cache_size() == programs
    assert (scores != expected).all()


def test_it_is_frozen_and_a_pytree_of_arrays(detector: Detector) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        detector.heads = {}  # type: ignore[misc]
    leaves, structure = jax.tree.flatten(detector)
    assert all(isinstance(leaf, jax.Array) for leaf in leaves)
    same = jax.tree.unflatten(structure, leaves)
    assert same.config == detector.config and same.fingerprint == detector.fingerprint
    image = texture(0)[None]
    np.testing.assert_array_equal(
        score_batch(detector, image).image_scores, detector.score(image)[0]
    )


@pytest.mark.parametrize("loaded", [False, True], ids=["in_memory", "loaded"])
def test_scoring_shares_its_batches_over_all_devices(
    loaded: bool,
    sources: Sources,
    detector: Detector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The library and batch prediction: eight devices give what one gives."""
    images = np.stack([texture(seed, 70) for seed in range(13)])
    for index, image in enumerate(images):
        (tmp_path / "in").mkdir(exist_ok=True)
        Image.fromarray(image).save(tmp_path / "in" / f"{index:02d}.png")
    expected, expected_maps = detector.score(images)
    predict(detector.scorer(), str(tmp_path / "in"), tmp_path / "one", 0.5)
    detector.save(tmp_path / "small.detector", networks=False)
    monkeypatch.setattr(devices, "devices", lambda: jax.devices()[:8])
    score_batch.clear_cache()
    shards: list[tuple[int, int]] = []
    whole = devices.shard_batch

    def counted(batch: np.ndarray) -> jax.Array:
        placed = whole(batch)
        assert not placed.sharding.is_fully_replicated
        shards.append((len(placed.sharding.device_set), len(placed.addressable_shards[0].data)))
        return placed

    monkeypatch.setattr(devices, "shard_batch", counted)
    path = tmp_path / "small.detector"
    one = Detector.load(path, sources.weights_dir) if loaded else detector
    if loaded:  # else the weights would be sent to the devices again for each batch
        assert all(len(leaf.sharding.device_set) == 8 for leaf in jax.tree.leaves(one))
    scores, maps = one.score(images)
    assert shards == [(8, 1)] * 2
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    np.testing.assert_allclose(maps, expected_maps, rtol=1e-5, atol=1e-5)
    predict(one.scorer(), str(tmp_path / "in"), tmp_path / "eight", 0.5)
    assert shards == [(8, 1)] * 4
    tables = []
    for name in ("one", "eight"):
        with (tmp_path / name / "scores.csv").open() as file:
            tables.append([(row["path"], float(row["score"])) for row in csv.DictReader(file)])
    assert [path for path, _ in tables[0]] == [path for path, _ in tables[1]]
    found = np.array([[score for _, score in table] for table in tables])
    np.testing.assert_allclose(found[1], found[0], rtol=1e-5)
    np.testing.assert_allclose(found[0], expected, rtol=1e-5)
    score_batch.clear_cache()


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
        detector = load_detector(tmp_path / sampling, "grid")
        assert len(detector.normal_scores) == 30
        _, maps = detector.score(texture(0, 200)[None])
        assert maps[0].shape == (200, 200)
        detector.save(tmp_path / "tiles.detector")
        assert Detector.load(tmp_path / "tiles.detector").config.data.tile_size == 64


def test_a_score_that_is_not_finite_names_the_image(detector: Detector) -> None:
    heads = jax.tree.map(lambda x: x * np.nan, detector.heads["conv3_x"])
    broken = dataclasses.replace(detector, heads={**detector.heads, "conv3_x": heads})
    with pytest.raises(InputError, match=r"images\[0\]: its score is not finite"):
        broken.score(texture(0)[None])


def test_a_detector_of_another_version(detector: Detector, tmp_path: Path) -> None:
    path = tmp_path / "old.detector"
    with_more = dataclasses.asdict(detector.config) | {"scoring": {"precision": "auto"}}
    about = {"config": with_more, "networks": ("resnet18", "resnet18_caffe"), "origin": {}}
    array_file.write(path, {"normal_scores": detector.normal_scores}, about)
    with pytest.raises(InputError, match=r"old\.detector: of another version of pfm_jax; make it"):
        Detector.load(path)
