"""Maps standardised at each position: against SciPy, and the same wherever a run is used."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shutil
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from pfm_jax import anomalies, artifact, export, images, mapping, proxy, scoring, standard
from pfm_jax.calibration import Threshold
from pfm_jax.config import Config
from pfm_jax.datasets.loose import examples
from pfm_jax.detector import Detector
from pfm_jax.run import Sources, load_dataset, restore, train_categories
from pfm_jax.types import InputError, ScoreMaps, Standard
from tests.synthetic import make_category, make_weights, small_config, texture

SIZE = 64


def config(standardize: bool = True) -> Config:
    found = small_config()
    found.data.held_out, found.scoring.standardize = 0.4, standardize
    return found


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    place = tmp_path_factory.mktemp("standard")
    make_category(place / "data" / "grid", good=40)
    make_weights(place / "weights", "resnet18", "resnet18_caffe")
    return Sources(str(place / "data"), str(place / "weights"))


@pytest.fixture(scope="module")
def run(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("run")
    train_categories(config(), sources, "grid", place)
    return place


def test_it_is_mean_and_deviation_over_the_training_images(
    sources: Sources, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load_dataset(config(), "grid", sources)
    state, _, networks = restore(run, "grid", Sources())
    heads = mapping.fold(state.params, state.batch_stats)
    found = scoring.score_examples(networks, heads, dataset.train, config())
    plain = np.concatenate([maps.fused for maps in found]).astype(np.float64)

    def expected(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        smooth = ndimage.gaussian_filter(np.stack([maps.mean(0), maps.std(0)]), (0, 2, 2))
        return smooth[0], smooth[1]

    mean, deviation = expected(plain)
    kept = np.load(run / "grid" / standard.FILE)
    np.testing.assert_allclose(kept["mean"], mean, atol=1e-5)
    np.testing.assert_allclose(kept["deviation"], deviation, atol=1e-5)
    picture = np.stack([images.decode_image(dataset.test[0], SIZE)])
    before = scoring.score_images(networks, heads, picture, config().mapping, config().scoring)
    _, (after,) = Detector.from_run(run, "grid").score(picture)
    np.testing.assert_allclose(after, (before.fused[0] - mean) / deviation, atol=1e-3)
    monkeypatch.setattr(standard, "MOST", 3)
    some = standard.measured(networks, heads, dataset.train, config()).standard
    mean, _ = expected(plain[[0, round((len(plain) - 1) / 2), len(plain) - 1]])
    assert some is not None
    np.testing.assert_allclose(some.mean, mean, atol=1e-5)


def test_the_same_numbers_wherever_the_run_is_used(
    sources: Sources, run: Path, tmp_path: Path
) -> None:
    with (run / "grid" / "scores.csv").open() as rows:
        table = {row["path"]: np.float32(row["score"]) for row in csv.DictReader(rows)}
    root = Path(str(sources.data_dir), "grid")
    files = [root / path for path in table]
    detector = Detector.from_run(run, "grid")
    np.testing.assert_array_equal(detector.score(files)[0], list(table.values()))
    fitted = Detector.fit(root / "train" / "good", config(), sources.weights_dir)
    np.testing.assert_array_equal(fitted.score(files)[0], list(table.values()))
    np.testing.assert_array_equal(fitted.normal_scores, detector.normal_scores)
    detector.save(tmp_path / "grid.detector")
    loaded = Detector.load(tmp_path / "grid.detector")
    np.testing.assert_array_equal(loaded.score(files)[0], list(table.values()))
    pictures = np.stack([texture(seed) for seed in range(3)])
    threshold = Threshold(3.0)
    export.write(detector, threshold, examples(pictures), tmp_path / "grid.pfm")
    scores, maps = artifact.load(tmp_path / "grid.pfm").score(pictures)
    expected, expected_maps = detector.scorer().score(pictures)
    np.testing.assert_allclose(scores, expected, atol=1e-4)
    np.testing.assert_allclose(maps, expected_maps, atol=1e-4)


def test_the_proxy_and_the_pictures_are_of_standardised_maps(sources: Sources, run: Path) -> None:
    found = proxy.measure_run(run, "grid", Sources())
    made = proxy.made_up(load_dataset(config(), "grid", sources).held_out)
    pictures = np.stack([images.decode_image(example, SIZE) for example in made])
    scores, _ = Detector.from_run(run, "grid").score(pictures)
    scores = scores.reshape(-1, 1 + len(anomalies.KINDS))
    labels = np.repeat([0, 1], len(scores))
    for index, kind in enumerate(anomalies.KINDS, 1):
        both = np.concatenate([scores[:, 0], scores[:, index]])
        assert found["kinds"][kind] == pytest.approx(roc_auc_score(labels, both))
    shown = json.loads((run / "grid" / "gallery" / "gallery.json").read_text())
    with (run / "grid" / "scores.csv").open() as rows:
        greatest = max(float(row["score"]) for row in csv.DictReader(rows))
    assert shown[0]["title"].endswith(f"{greatest:.3f}")


@pytest.mark.parametrize("spread", [1.0, 0.0])
def test_where_all_images_are_alike_nothing_explodes(
    spread: float, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenth of the average deviation is the least, or a thousandth of the average mean."""
    state, _, networks = restore(run, "grid", Sources())
    heads = mapping.fold(state.params, state.batch_stats)
    maps = np.full((20, SIZE, SIZE), 2, np.float32)
    maps[:, :16] += spread * np.random.default_rng(0).normal(size=(20, 16, SIZE))
    found = ScoreMaps({}, jnp.asarray(maps), jnp.asarray(maps.max((1, 2))))
    monkeypatch.setattr(scoring, "score_examples", lambda *_: iter([found]))
    images = examples(np.zeros((20, SIZE, SIZE), np.uint8))
    given = standard.measured(networks, heads, images, config()).standard
    assert given is not None
    deviation = ndimage.gaussian_filter(maps.std(0), 2)
    least = 0.1 * deviation.mean() if spread else 1e-3 * maps.mean()
    assert deviation[-1].max() < least
    np.testing.assert_allclose(given.deviation, np.maximum(deviation, least), rtol=1e-4)


def test_off_it_changes_nothing(sources: Sources, run: Path) -> None:
    state, _, networks = restore(run, "grid", Sources())
    heads = mapping.fold(state.params, state.batch_stats)
    assert standard.measured(networks, heads, [], config(standardize=False)) is heads
    pictures = np.stack([texture(0)])
    plain = scoring.score_images(networks, heads, pictures, config().mapping, config().scoring)
    nothing = Standard(np.zeros((SIZE, SIZE)), np.ones((SIZE, SIZE)))  # type: ignore[arg-type]
    given = dataclasses.replace(heads, standard=nothing)
    same = scoring.score_images(networks, given, pictures, config().mapping, config().scoring)
    np.testing.assert_array_equal(plain.fused, same.fused)


def test_too_few_images_are_told_before_anything_is_trained(
    sources: Sources, tmp_path: Path
) -> None:
    make_category(tmp_path / "data" / "grid", good=20)
    place = Sources(str(tmp_path / "data"), sources.weights_dir)
    message = "standardize=True needs 16 training images, there are 12"
    with pytest.raises(InputError, match=f"grid: config.scoring.{message}"):
        train_categories(config(), place, "grid", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError, match=message):
        Detector.fit(tmp_path / "data" / "grid" / "train", config(), sources.weights_dir)


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def smaller() -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, mean=np.zeros((8, 8)), deviation=np.ones((8, 8)))
    return buffer.getvalue()


def test_a_lost_or_damaged_file_is_named(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "grid" / standard.FILE
    whole = file.read_bytes()
    for content in (b"", b"PK\x03\x04 no archive", whole[:1000], npy(np.zeros(3)), smaller()):
        file.write_bytes(content)
        with pytest.raises(InputError, match=r"standard\.npz: not readable .*launch\.evaluate"):
            Detector.from_run(tmp_path, "grid")
    file.unlink()
    with pytest.raises(InputError, match=r"standard\.npz: not readable"):
        Detector.from_run(tmp_path, "grid")
