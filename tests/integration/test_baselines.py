"""Baselines as runs, files, artefacts and cases of a sweep, as the mapping is."""

from __future__ import annotations

import dataclasses
import json
from contextlib import nullcontext
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from pfm_jax import baselines
from pfm_jax.baselines import patchcore
from pfm_jax.config import BASELINE_SCORING, Config, NetworksConfig, SweepConfig
from pfm_jax.datasets.inputs import examples
from pfm_jax.inference import artifact, export
from pfm_jax.inference.detector import Detector
from pfm_jax.methods import (
    IMAGES,
    AeSsim,
    Baseline,
    CnnDict,
    Padim,
    PatchCore,
    Spade,
    Stfpm,
    Trained,
    Uninformed,
    Vae,
)
from pfm_jax.recipes import validate
from pfm_jax.runs.fit import fit
from pfm_jax.runs.run import load_detector
from pfm_jax.runs.train import train_categories
from pfm_jax.sweeps import jobs as sweep
from pfm_jax.sweeps import results, speed
from pfm_jax.sweeps.plan import jobs, make_plan, replaced
from pfm_jax.sweeps.report import page
from pfm_jax.system import interrupts
from pfm_jax.types import BLANK, InputError, Sources
from tests.synthetic import make_sources, small_config, texture

ONE = NetworksConfig("resnet18", "resnet18")
METHODS = (
    Spade(neighbours=3),
    PatchCore(channels=16, coreset=0.1),
    Padim(channels=8),
    CnnDict(words=8),
    Stfpm(stages=("conv2_x", "conv3_x")),
    Uninformed(stages=("conv2_x",), students=2),
    AeSsim(latent=8),
    Vae(latent=8),
)
EPOCHS, BATCH = 5, 4
NEW = np.stack([texture(seed, 64) for seed in range(5)])


def recipe(method: Baseline) -> Config:
    changes = {"baseline": method, "networks": ONE, "scoring": BASELINE_SCORING}
    config = replaced(small_config(), {**changes, "name": method.method, "data.held_out": 0.25})
    if not isinstance(method, Trained):
        return config
    how = {"sampling": "images", "epochs": EPOCHS, "batch_size": BATCH, "checkpoint_every": 2}
    train = {f"train.{name}": value for name, value in how.items()}
    return replaced(config, {**train, "train.learning_rate": {IMAGES: 1e-3}})


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return make_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def workdir(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of each method in a folder of its name."""
    place = tmp_path_factory.mktemp("runs")
    for method in METHODS:
        train_categories(recipe(method), sources, "grid", place / method.method)
    return place


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.method)
def test_a_run_is_what_a_fit_is(
    method: Baseline, sources: Sources, workdir: Path, tmp_path: Path
) -> None:
    folder = workdir / method.method
    results = json.loads((folder / "grid" / "metrics.json").read_text())
    assert results["image_auroc"] is not None
    assert results["pro_auc"] is not None
    assert (results["levels"], results["combinations"]) == ({}, {})
    batches = -(-results["counts"]["train"] // BATCH)
    assert results["step"] == (EPOCHS * batches if isinstance(method, Trained) else 0)
    detector = load_detector(folder, "grid", sources.weights_dir)
    images = Path(str(sources.data_dir), "grid", "train", "good")
    fitted = fit(images, recipe(method), sources.weights_dir)
    scores, maps = detector.score(NEW)
    for one in (fitted, saved(fitted, tmp_path)):
        found, drawn = one.score(NEW)
        np.testing.assert_allclose(found, scores, rtol=1e-5)
        np.testing.assert_allclose(drawn, maps, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(fitted.normal_scores, detector.normal_scores)


def saved(detector: Detector, folder: Path) -> Detector:
    """The detector as read back from a file that holds its networks."""
    detector.save(folder / "one.safetensors")
    return Detector.load(folder / "one.safetensors")


def test_a_finished_run_is_evaluated_again_but_not_fitted(
    sources: Sources, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("fitted again")

    before = json.loads((workdir / "padim" / "grid" / "metrics.json").read_text())
    monkeypatch.setattr(baselines, "fit", never)
    config = recipe(METHODS[2])
    again = train_categories(config, sources, "grid", workdir / "padim")["grid"]
    assert again["pixel_auroc"] == before["pixel_auroc"]
    assert again["seconds"]["train"] == before["seconds"]["train"]
    with pytest.raises(AssertionError, match="fitted again"):
        train_categories(config, sources, "tile", workdir / "padim")


def test_a_student_resumes_from_its_checkpoint(
    sources: Sources, workdir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after four steps, it ends as one that was not."""
    answers = iter((False, False, True))
    with monkeypatch.context() as patched, pytest.raises(SystemExit):
        patched.setattr(interrupts, "deferred", lambda: nullcontext(lambda: next(answers)))
        train_categories(recipe(METHODS[4]), sources, "grid", tmp_path)
    assert json.loads((tmp_path / "grid" / "run.json").read_text())["status"] == "running"
    train_categories(recipe(METHODS[4]), sources, "grid", tmp_path)
    whole, resumed = (folder / "grid" / "scores.csv" for folder in (workdir / "stfpm", tmp_path))
    assert whole.read_text() == resumed.read_text()


def test_a_run_of_another_method_is_refused(sources: Sources, workdir: Path) -> None:
    """One that is trained, in the folder of one that was fitted."""
    with pytest.raises(InputError, match=r"config\.baseline"):
        train_categories(small_config(), sources, "grid", workdir / "padim")


def test_a_unified_baseline_is_fitted_to_all(sources: Sources, tmp_path: Path) -> None:
    results = train_categories(recipe(METHODS[2]), sources, "all", tmp_path, unified=True)
    assert sorted(results) == ["unified/grid", "unified/tile"]
    one, other = (load_detector(tmp_path / "unified", name) for name in ("grid", "tile"))
    np.testing.assert_array_equal(one.model["mean"], other.model["mean"])


def test_what_is_ignored_scores_no_image(sources: Sources) -> None:
    """Whatever lies there; and the score of PatchCore is of no position there."""
    images = Path(str(sources.data_dir), "grid", "train", "good")
    ignored = np.zeros((64, 64), bool)
    ignored[16:48, 16:48] = True
    config = recipe(PatchCore(channels=16, coreset=0.1, neighbours=1))
    detector = fit(images, config, sources.weights_dir, ignored=ignored)
    changed = NEW.copy()
    changed[:, 16:48, 16:48] = 255 - changed[:, 16:48, 16:48]
    scores, maps = detector.score(NEW)
    again, other = detector.score(changed)
    np.testing.assert_array_equal(scores, again)
    np.testing.assert_array_equal(maps, other)
    blank = np.array(BLANK, np.uint8)
    seen = jnp.asarray(np.where(ignored[None, ..., None], blank, NEW))
    found = patchcore.maps(detector.networks.source, detector.model, seen, config.baseline)
    outside = np.where(ignored[4::8, 4::8][None], -np.inf, found.maps)
    np.testing.assert_allclose(scores, outside.max((1, 2)), rtol=1e-4)


def test_a_folder_of_other_settings_is_refused(sources: Sources, workdir: Path) -> None:
    other = recipe(dataclasses.replace(METHODS[2], channels=9))
    with pytest.raises(InputError, match=r"config\.baseline\.channels"):
        train_categories(other, sources, "grid", workdir / "padim")


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.method)
def test_an_artefact_scores_as_its_detector(
    method: Baseline, sources: Sources, workdir: Path, tmp_path: Path
) -> None:
    """As `launch.export` writes and checks it on images, and `launch.predict` reads it."""
    detector = load_detector(workdir / method.method, "grid", sources.weights_dir)
    path = tmp_path / "grid.pfm"
    assert export.write(detector, None, examples(NEW), path) < 1e-4
    scores, maps = artifact.load(path).score(NEW)
    expected, drawn = detector.scorer().score(NEW)
    np.testing.assert_allclose(scores, expected, rtol=1e-4)
    np.testing.assert_allclose(maps, drawn, rtol=1e-4, atol=1e-4)


def test_a_sweep_has_baselines_beside_the_mapping(sources: Sources, tmp_path: Path) -> None:
    cases = {
        method.method: {"baseline": method, "networks": ONE, "scoring": BASELINE_SCORING}
        for method in METHODS[1:3]
    }
    plan = make_plan(
        SweepConfig("methods", small_config(), {"mapping": {}, **cases}), ("grid",), (0,)
    )
    (tmp_path / "sweep.json").write_text(json.dumps(plan.to_json()))
    for job in jobs(plan):
        sweep.run_job(plan, job, sources, tmp_path)
    found = results.cells(results.read_plan(tmp_path), tmp_path)
    assert [cell.case for cell in found if cell.metrics] == ["mapping", "patchcore", "padim"]
    report = page.write(tmp_path).read_text()
    assert "PatchCore, resnet18" in report
    assert "against the number of training images" in report
    rates = {case: speed.read(tmp_path, case) for case in plan.cases}
    assert all(rate and rate.images_per_second > 0 for rate in rates.values())
    depends = {case: rate and [*rate.by_images] for case, rate in rates.items()}
    assert depends == {"mapping": [], "patchcore": [*speed.SIZES], "padim": []}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"baseline.coreset": 0.0}, "config.baseline.coreset=0.0: must be above 0, up to 1"),
        ({"baseline.neighbours": 0}, "config.baseline.neighbours=0: must be positive"),
        ({"baseline.stages": ()}, "config.baseline.stages=(): must be at least one stage"),
        ({"baseline.stages": ("conv9",)}, "config.baseline.stages: resnet18 has no stage 'conv9'"),
        ({"networks.target": "resnet34"}, "config.networks.target='resnet34': must be 'resnet18'"),
        ({"baseline": Stfpm()}, "config.train.sampling='positions': must be 'images'"),
        ({"baseline": Spade(pooled="conv5_x")}, "config.baseline.pooled='conv5_x': must be one of"),
        ({"baseline.stages": ("conv4_x", "conv2_x")}, "must be from fine to coarse"),
        ({"baseline": Padim(stages=())}, "config.baseline.stages=(): must be at least one stage"),
        ({"baseline": AeSsim(stages=("conv2_x",))}, "must be 0 of the network's stages"),
        (
            {"scoring.fusion": "geometric"},
            "scoring.fusion='geometric': must be 'arithmetic'",
        ),
        ({"networks.neighbourhood": 3}, "config.networks.neighbourhood=3: must be 1"),
        ({"data.tile_size": 32}, "config.data.tile_size=32: must be 0: a baseline has no tiles"),
    ],
)
def test_settings_that_can_not_be_are_refused(changes: dict[str, object], told: str) -> None:
    with pytest.raises(InputError) as error:
        validate(replaced(recipe(PatchCore()), changes))
    assert told in str(error.value)
