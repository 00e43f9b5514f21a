"""Few training images, and one detector for several categories."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from pfm_jax import datasets
from pfm_jax.config import Config
from pfm_jax.datasets.inputs import examples
from pfm_jax.inference.detector import Detector
from pfm_jax.runs.fit import fit
from pfm_jax.runs.run import evaluate_run, load_detector
from pfm_jax.runs.train import train_categories
from pfm_jax.sweeps.plan import replaced
from pfm_jax.training import cache
from pfm_jax.types import InputError, Sources
from tests.synthetic import make_sources, small_config


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """Two categories, and random weights."""
    return make_sources(tmp_path_factory.mktemp("sources"))


def few(shots: int) -> Config:
    return replaced(small_config(), {"data.held_out": 0.0, "data.shots": shots})


def assert_same_heads(one: Detector, other: Detector) -> None:
    jax.tree.map(np.testing.assert_array_equal, one.model, other.model)


def good_images(sources: Sources, category: str) -> list[Path]:
    assert sources.data_path is not None
    return sorted((sources.data_path / category / "train" / "good").iterdir())


def test_shots_are_drawn_by_the_seed(sources: Sources, tmp_path: Path) -> None:
    """Seeds trained together see what each draws; a fit of those images alone is the same."""
    results = train_categories(few(2), sources, "grid", tmp_path, (0, 1))
    files, drawn = good_images(sources, "grid"), []
    for seed in (0, 1):
        assert results[f"seed_{seed}/grid"]["counts"]["train"] == 2
        shots = datasets.draw_shots(examples(files), 2, seed)
        drawn.append([Path(example.path).name for example in shots])
        chosen = [file for file in files if file.name in drawn[-1]]
        alone = fit(chosen, replaced(few(0), {"seed": seed}), sources.weights_dir)
        assert_same_heads(alone, load_detector(tmp_path / f"seed_{seed}", "grid"))
    assert drawn[0] != drawn[1]
    again = evaluate_run(tmp_path / "seed_1", "grid", sources)
    assert again["image_auroc"] == results["seed_1/grid"]["image_auroc"]


def test_too_many_shots_are_refused(sources: Sources, tmp_path: Path) -> None:
    message = "grid: config.data.shots=7: must be at most 6, the number of training images"
    with pytest.raises(InputError, match=message):
        train_categories(few(7), sources, "grid", tmp_path)


@pytest.fixture(scope="module")
def unified(
    sources: Sources, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, dict[str, Any]]]:
    """Workdir and results of a unified run."""
    workdir = tmp_path_factory.mktemp("unified_run")
    return workdir, train_categories(few(0), sources, "all", workdir, unified=True)


def test_a_unified_run_is_a_fit_of_all_images(
    sources: Sources, unified: tuple[Path, dict[str, dict[str, Any]]]
) -> None:
    """One set of heads, and results for each category."""
    workdir, results = unified
    assert list(results) == ["unified/grid", "unified/tile"]
    every = [*good_images(sources, "grid"), *good_images(sources, "tile")]
    alone = fit(every, few(0), sources.weights_dir)
    for category in ("grid", "tile"):
        assert_same_heads(alone, load_detector(workdir / "unified", category))
        found = results[f"unified/{category}"]
        assert found["trained_on"] == ["grid", "tile"]
        assert found["counts"]["train"] == len(every)
        again = evaluate_run(workdir / "unified", category, sources)
        assert again["image_auroc"] == found["image_auroc"]


def test_an_interrupted_unified_run_resumes(
    sources: Sources, unified: tuple[Path, dict[str, dict[str, Any]]]
) -> None:
    """Without its last checkpoint, what is missing is trained again to the same scores."""
    workdir, _ = unified
    scores = workdir / "unified" / "tile" / "scores.csv"
    before = scores.read_bytes()
    shutil.rmtree(workdir / "unified" / "checkpoints" / "30")
    scores.unlink()
    train_categories(few(0), sources, "all", workdir, unified=True)
    assert scores.read_bytes() == before


def test_a_folder_belongs_to_one_run(
    sources: Sources, unified: tuple[Path, dict[str, dict[str, Any]]], tmp_path: Path
) -> None:
    workdir, _ = unified
    with pytest.raises(InputError, match="holds a run trained on grid, tile; use another"):
        train_categories(few(0), sources, "tile", workdir / "unified")
    with pytest.raises(InputError, match="a unified run; give --workdir="):
        load_detector(workdir, "unified")
    train_categories(few(0), sources, "tile", tmp_path / "unified")
    with pytest.raises(InputError, match="holds a run trained on tile; use another"):
        train_categories(few(0), sources, "all", tmp_path, unified=True)


def test_unified_seeds_share_features_and_hold_out_of_each_category(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    extracted: list[int] = []
    build = cache.build_cache

    def counting(networks: Any, examples: Any, *rest: Any, **options: Any) -> Any:
        extracted.append(len(examples))
        return build(networks, examples, *rest, **options)

    monkeypatch.setattr(cache, "build_cache", counting)
    config = replaced(small_config(), {"data.held_out": 0.5})
    results = train_categories(config, sources, "all", tmp_path, (3, 4), unified=True)
    assert extracted == [6]
    found = results["seed_4/unified/tile"]["counts"]
    assert (found["train"], found["held_out"]) == (6, 3)
    scores = (tmp_path / "seed_4" / "unified" / "tile" / "normal_scores.csv").read_text()
    assert scores.count("train/good/") == 3


def test_a_unified_run_of_one_category_is_refused(sources: Sources, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="category=grid: a unified run is trained on all"):
        train_categories(small_config(), sources, "grid", tmp_path, unified=True)
