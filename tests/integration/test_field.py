"""Runs on folders as they come from the field: good images only, test images that change."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from pfm_jax.evaluation import figures
from pfm_jax.metrics import NAMES
from pfm_jax.runs import record
from pfm_jax.runs.run import evaluate_run, load_detector
from pfm_jax.runs.train import train_categories
from pfm_jax.sweeps.plan import replaced
from pfm_jax.types import InputError, Sources
from tests.synthetic import make_category, make_weights, png, small_config, texture

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
