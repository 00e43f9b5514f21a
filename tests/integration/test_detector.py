"""The library's face: the same numbers as the launchers'."""

from __future__ import annotations

import csv
import dataclasses
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from pfm_jax.inference.detector import Detector, score_batch
from pfm_jax.runs import finish
from pfm_jax.runs.fit import fit
from pfm_jax.runs.run import load_detector
from pfm_jax.runs.train import train_categories
from pfm_jax.serving.batch import predict
from pfm_jax.sweeps.plan import replaced
from pfm_jax.system import arrays as array_file
from pfm_jax.system import devices
from pfm_jax.training import loop
from pfm_jax.types import InputError, Sources
from tests.synthetic import plain_config as config
from tests.synthetic import texture


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
        patch.setattr(finish, "make_detector", killed)
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
