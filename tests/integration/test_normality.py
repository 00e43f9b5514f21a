"""Maps standardised at each position: against SciPy, and the same wherever a run is used."""

from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage
from sklearn.metrics import roc_auc_score

from pfm_jax.datasets import images
from pfm_jax.datasets.inputs import examples
from pfm_jax.evaluation import proxy, synthetic
from pfm_jax.inference import artifact, export, normality
from pfm_jax.inference.calibration import Threshold
from pfm_jax.inference.detector import Detector, score_batch
from pfm_jax.runs.fit import fit
from pfm_jax.runs.run import load_dataset, load_detector, measure_proxy
from pfm_jax.runs.train import train_categories
from pfm_jax.system import arrays as array_file
from pfm_jax.types import InputError, Sources
from tests.synthetic import make_category, texture
from tests.synthetic import standardized_config as config

SIZE = 64


def plain_of(detector: Detector) -> Detector:
    """The detector, its maps not standardised."""
    return dataclasses.replace(detector, normality=None)


def test_it_is_mean_and_deviation_over_the_training_images(
    sources: Sources, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = load_dataset(config(), "grid", sources)
    detector = load_detector(run, "grid")
    found = plain_of(detector).stream(dataset.train)
    plain = np.log(np.concatenate([maps.fused for maps in found]).astype(np.float64))

    def expected(maps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        smooth = ndimage.gaussian_filter(np.stack([maps.mean(0), maps.std(0)]), (0, 2, 2))
        return smooth[0], smooth[1]

    mean, deviation = expected(plain)
    kept, _ = array_file.read(run / "grid" / "detector.safetensors")
    np.testing.assert_allclose(kept["normality/mean"], mean, atol=1e-5)
    np.testing.assert_allclose(kept["normality/deviation"], deviation, atol=1e-5)
    picture = np.stack([images.decode_image(dataset.test[0], SIZE)])
    before = score_batch(plain_of(detector), picture)
    _, (after,) = detector.score(picture)
    np.testing.assert_allclose(after, (np.log(before.fused[0]) - mean) / deviation, atol=1e-3)
    monkeypatch.setattr(normality, "MOST_IMAGES", 3)
    some = normality.with_normality(plain_of(detector), dataset.train).normality
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
    detector = load_detector(run, "grid")
    np.testing.assert_array_equal(detector.score(files)[0], list(table.values()))
    fitted = fit(root / "train" / "good", config(), sources.weights_dir)
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
    found = measure_proxy(run, "grid", Sources())
    made = proxy.made_up(load_dataset(config(), "grid", sources).held_out)
    pictures = np.stack([images.decode_image(example, SIZE) for example in made])
    scores, _ = load_detector(run, "grid").score(pictures)
    scores = scores.reshape(-1, 1 + len(synthetic.KINDS))
    labels = np.repeat([0, 1], len(scores))
    for index, kind in enumerate(synthetic.KINDS, 1):
        both = np.concatenate([scores[:, 0], scores[:, index]])
        assert found["kinds"][kind] == pytest.approx(roc_auc_score(labels, both))
    shown = json.loads((run / "grid" / "gallery" / "gallery.json").read_text())
    with (run / "grid" / "scores.csv").open() as rows:
        greatest = max(float(row["score"]) for row in csv.DictReader(rows))
    assert shown[0]["title"].endswith(f"{greatest:.3f}")


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
        fit(tmp_path / "data" / "grid" / "train", config(), sources.weights_dir)
