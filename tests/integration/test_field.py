"""Runs on folders as they come from the field: good images only, test images that change."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pfm_jax
from pfm_jax import datasets
from pfm_jax.datasets import images, inputs
from pfm_jax.evaluation import figures
from pfm_jax.inference import artifact, export
from pfm_jax.metrics import NAMES
from pfm_jax.runs import record
from pfm_jax.runs.run import evaluate_run, load_detector
from pfm_jax.runs.train import train_categories
from pfm_jax.sweeps.plan import replaced
from pfm_jax.types import InputError, Sources
from tests.synthetic import (
    make_category,
    make_weights,
    png,
    small_config,
    texture,
)

FEW_STEPS = replaced(small_config(steps=10), {"data.held_out": 0.5})


@pytest.fixture
def sources(tmp_path: Path) -> Sources:
    make_category(tmp_path / "data" / "grid")
    make_weights(tmp_path / "weights", "resnet18", "resnet18_caffe")
    return Sources(str(tmp_path / "data"), str(tmp_path / "weights"))


def test_good_images_only_make_a_detector(
    sources: Sources, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A folder of pictures and nothing else: what can't be measured is said, and is null."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(8):
        (folder / f"{index}.png").write_bytes(png(texture(index)))
    place = Sources(str(folder), sources.weights_dir)
    with caplog.at_level(logging.WARNING, "pfm_jax"):
        found = train_categories(FEW_STEPS, place, "all", tmp_path / "run")
    assert "no good and no anomalous test images" in caplog.text
    (metrics,) = found.values()
    kept = json.loads((tmp_path / "run" / "pictures" / "metrics.json").read_text())
    for name in NAMES:
        assert metrics[name] is None and kept[name] is None
    assert kept["counts"] == {"train": 4, "held_out": 4, "test_good": 0, "test_anomalous": 0}
    row = figures.table(found).splitlines()[-1].split()
    assert row[:9] == ["pictures", *["-"] * 8]
    detector = load_detector(tmp_path / "run", "pictures")
    decided = detector.predict(texture(99)[None], false_positive_rate=0.2)
    assert decided.is_anomalous.shape == (1,) and len(detector.normal_scores) == 4
    again = evaluate_run(tmp_path / "run", "pictures", Sources())
    assert again["image_auroc"] is None


@pytest.mark.parametrize("missing", ["good", "hole"])
def test_test_images_of_one_kind_are_scored(missing: str, sources: Sources, tmp_path: Path) -> None:
    """Pixels can be judged on anomalous images alone; images need both kinds."""
    root = Path(str(sources.data_dir)) / "grid"
    for split in ("test", "ground_truth"):
        for path in (root / split).glob(f"{missing}/*"):
            path.unlink()
    metrics = train_categories(FEW_STEPS, sources, "grid", tmp_path / "run")["grid"]
    assert metrics["image_auroc"] is None
    assert (metrics["pixel_auroc"] is None) == (missing == "hole")
    scores = (tmp_path / "run" / "grid" / "scores.csv").read_text().splitlines()
    assert len(scores) == 1 + (4 if missing == "good" else 3)


def test_test_images_never_decide_whether_trained_heads_may_be_used(
    sources: Sources, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Changed ones are evaluated as they are now, with a line that says so."""
    before = train_categories(FEW_STEPS, sources, "grid", tmp_path / "run")["grid"]
    test = Path(str(sources.data_dir)) / "grid" / "test" / "good" / "000.png"
    test.write_bytes(png(texture(321)))
    (test.parent / "more.png").write_bytes(png(texture(322)))
    with caplog.at_level(logging.WARNING, "pfm_jax"):
        after = evaluate_run(tmp_path / "run", "grid", Sources())
    assert "grid: the test images are others than at the last evaluation" in caplog.text
    assert after["counts"]["test_good"] == before["counts"]["test_good"] + 1
    assert after["data"] == before["data"] and after["test_data"] != before["test_data"]
    caplog.clear()
    with caplog.at_level(logging.WARNING, "pfm_jax"):
        again = train_categories(FEW_STEPS, sources, "grid", tmp_path / "run")["grid"]
    assert again["image_auroc"] == after["image_auroc"] and not caplog.text
    (test.parents[2] / "train" / "good" / "000.png").write_bytes(png(texture(323)))
    with pytest.raises(InputError, match="holds a run of another kind: data was"):
        evaluate_run(tmp_path / "run", "grid", Sources())


def test_a_torn_test_image_costs_no_training(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found before the training; or, torn later, after it, which is kept."""
    test = Path(str(sources.data_dir)) / "grid" / "test" / "good" / "000.png"
    whole = test.read_bytes()
    test.write_bytes(whole[:500])
    with pytest.raises(InputError, match=r"test/good/000\.png: not a readable image"):
        train_categories(FEW_STEPS, sources, "grid", tmp_path / "run")
    assert not (tmp_path / "run" / "grid").exists()
    test.write_bytes(whole)
    append = record.append_curve

    def torn(*arguments: object) -> None:
        test.write_bytes(whole[:500])
        append(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(record, "append_curve", torn)  # in the middle of the training
    with pytest.raises(InputError, match=r"000\.png: not .* \(training is done and kept; mend"):
        train_categories(FEW_STEPS, sources, "grid", tmp_path / "run")
    detector = tmp_path / "run" / "grid" / record.DETECTOR
    written = detector.read_bytes()
    test.write_bytes(whole)
    monkeypatch.undo()
    monkeypatch.setattr("pfm_jax.runs.train._fit", None)  # nothing is trained
    assert train_categories(FEW_STEPS, sources, "grid", tmp_path / "run")["grid"]["image_auroc"]
    assert detector.read_bytes() == written


def varied(seed: int) -> np.ndarray:
    """A texture whose upper left corner may look like anything."""
    pixels = texture(seed)
    pixels[:20, :30] = np.random.default_rng(seed).integers(0, 256, (20, 30, 3))
    return pixels


@pytest.fixture
def corner(sources: Sources) -> Sources:
    """`grid`, with 12 images whose corner is to be ignored."""
    root = Path(str(sources.data_dir)) / "grid"
    for path in (root / "train" / "good").iterdir():
        path.unlink()
    for index in range(12):
        (root / "train" / "good" / f"{index}.png").write_bytes(png(varied(index)))
    ignored = np.zeros((64, 64), np.uint8)
    ignored[:20, :30] = 255
    (root / "ignore.png").write_bytes(png(ignored))
    return sources


def test_the_ignored_part_has_no_part_in_anything(
    corner: Sources, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its pixels score 0 and change no other; in the run, its file, an export and `pfm.fit`."""
    with caplog.at_level(logging.WARNING, "pfm_jax"):
        train_categories(FEW_STEPS, corner, "grid", tmp_path / "run")
    assert "grid/ignore.png: 14.6% of each image is ignored" in caplog.text
    detector = load_detector(tmp_path / "run", "grid", weights_dir=corner.weights_dir)
    detector.save(tmp_path / "grid.safetensors")
    exported = artifact.Artifact(*export.make(detector, None))
    first, second = texture(50), varied(50)
    expected, maps = detector.score(np.stack([first, second]))
    assert expected[0] == expected[1] > 0
    np.testing.assert_array_equal(maps[0], maps[1])
    assert not maps[0][:20, :30].any() and maps[0][20:].all() and maps[0][:, 30:].all()
    loaded = pfm_jax.load(tmp_path / "grid.safetensors")
    np.testing.assert_allclose(loaded.score(second[None])[0], expected[:1], rtol=1e-6)
    found = artifact.program(exported)(np.stack([first, second]))
    np.testing.assert_allclose(found["anomaly_maps"], np.stack(maps), rtol=1e-5, atol=1e-5)
    root = Path(str(corner.data_dir)) / "grid"
    images = [np.asarray(Image.open(one)) for one in sorted((root / "train" / "good").iterdir())]
    ignored = np.asarray(Image.open(root / "ignore.png")) > 0
    fitted = pfm_jax.fit(np.stack(images), FEW_STEPS, corner.weights_dir, ignored=ignored)
    assert fitted.score(first[None])[0] == fitted.score(second[None])[0]
    other = texture(50)
    other[40:60, 40:60] = (255, 0, 0)
    assert detector.score(other[None])[0] > expected[0]


def test_nothing_ignored_shows_after_the_image_was_made_smaller() -> None:
    """LANCZOS looks further than the pixels that the mask covers."""
    ignored = np.zeros((300, 500), bool)
    ignored[40:90, 100:101] = True
    images_of = [np.random.default_rng(0).integers(0, 256, (300, 500, 3), np.uint8)] * 2
    images_of[1] = np.where(ignored[..., None], np.uint8(255) - images_of[0], images_of[0])
    for size in (64, 256, 512):
        kept = ~images.blank_at(ignored, size)
        one, other = (images.resized(Image.fromarray(array), size) for array in images_of)
        np.testing.assert_array_equal(one[kept], other[kept])
        assert not np.array_equal(one, other) and 0.8 < kept.mean() < 1


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((8, 8)), "ignored: marks no pixel"),
        (np.ones((8, 8), np.int64), "ignored: marks every pixel"),
        (np.ones((8, 8, 3)), r"ignored has shape \(8, 8, 3\)"),
    ],
)
def test_masks_of_what_to_ignore_are_checked(mask: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pfm_jax.fit(np.stack([texture(0)] * 4), FEW_STEPS, ignored=mask)


def test_the_mask_is_no_image_anywhere(corner: Sources, caplog: pytest.LogCaptureFixture) -> None:
    """Nor is it counted where it is used."""
    root = Path(str(corner.data_dir)) / "grid"
    for path in (root / "train" / "good").iterdir():
        path.rename(root / path.name)
    for name in ("train", "test", "ground_truth"):
        shutil.rmtree(root / name)
    found = datasets.load("folder", root, "grid")
    assert len(found.train) == 12 and found.ignored is not None
    assert "passed over" not in caplog.text
    assert len(inputs.examples(root)) == 12
    assert "1 file passed over: 1 the mask ignore.png" in caplog.text


def test_training_sees_nothing_of_the_ignored_part(corner: Sources, tmp_path: Path) -> None:
    """Bitwise the same run, whatever the corner of its images looks like."""
    folder = Path(str(corner.data_dir)) / "grid" / "train" / "good"
    scores = []
    for seed in (0, 1):
        for index in range(12):
            pixels = texture(index)
            pixels[:20, :30] = varied(1000 * seed + index)[:20, :30]
            (folder / f"{index}.png").write_bytes(png(pixels))
        train_categories(FEW_STEPS, corner, "grid", tmp_path / f"run_{seed}")
        scores.append((tmp_path / f"run_{seed}" / "grid" / "scores.csv").read_text())
    assert scores[0] == scores[1]
    (folder.parents[1] / "ignore.png").unlink()
    train_categories(FEW_STEPS, corner, "grid", tmp_path / "seen")
    assert (tmp_path / "seen" / "grid" / "scores.csv").read_text() != scores[0]


@pytest.mark.parametrize(("value", "extent"), [(0, "no pixel"), (255, "every pixel")])
def test_ignoring_nothing_or_everything_is_refused(
    value: int, extent: str, corner: Sources, tmp_path: Path
) -> None:
    path = Path(str(corner.data_dir)) / "grid" / "ignore.png"
    path.write_bytes(png(np.full((64, 64), value, np.uint8)))
    with pytest.raises(InputError, match=f"ignore.png: marks {extent}"):
        train_categories(FEW_STEPS, corner, "grid", tmp_path / "run")
