"""The main job from end to end: on made-up images here, on real ones where they are at hand."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from configs import mb_pfm_r18_r50
from pfm_jax.metrics import NAMES, SELDOM
from pfm_jax.runs import record, train
from pfm_jax.runs.run import evaluate_run, load_detector
from pfm_jax.runs.train import train_categories
from pfm_jax.sweeps.plan import replaced
from pfm_jax.system import arrays
from pfm_jax.types import InputError, Sources
from tests.synthetic import LEVELS, make_category, make_sources, make_weights, small_config
from tests.unit.datasets.test_published import make_loco

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """Two categories of the same shapes, and random weights."""
    return make_sources(tmp_path_factory.mktemp("sources"))


def test_main_job(sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jax.clear_caches()  # other tests may have compiled what this one counts
    compiled: list[str] = []

    def listen(event: str, duration: float, **_: object) -> None:
        if event.endswith("backend_compile_duration"):
            compiled.append(event)

    counts = []
    one_group = train.train_together

    def counting(*arguments, **options):
        before = len(compiled)
        results = one_group(*arguments, **options)
        counts.append(len(compiled) - before)
        return results

    jax.monitoring.register_event_duration_secs_listener(listen)
    monkeypatch.setattr(train, "train_together", counting)
    try:
        results = train_categories(small_config(), sources, "all", tmp_path)
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert counts[0] > 0
    assert counts[1] == 0, "a second category of the same shapes compiles nothing new"

    assert list(results) == ["grid", "tile"]
    for category, found in results.items():
        folder = tmp_path / category
        assert json.loads((folder / "metrics.json").read_text()) == json.loads(json.dumps(found))
        for name in NAMES.keys() - SELDOM:
            assert 0 <= found[name] <= 1
            assert all(0 <= found["levels"][level][name] <= 1 for level in LEVELS)
        assert found["image_auroc"] == 1, "a red square on a grey grid"
        assert found["counts"] == {
            **{"train": 6, "held_out": 0},
            **{"test_good": 3, "test_anomalous": 4},
        }
        assert found["decisions"] is None, "no images were held out"
        assert set(found["seconds"]) == {"features", "train", "memory", "evaluate"}
        assert found["config"] == json.loads(json.dumps(dataclasses.asdict(small_config())))
        assert {"seed", "versions", "device", "data", "weights", "step"} <= set(found)
        with Image.open(folder / "heatmaps.png") as picture:
            assert picture.width > 500
        rows = (folder / "scores.csv").read_text().splitlines()
        assert rows[0] == "path,score,label"
        assert len(rows) == 8
        assert not list(folder.glob(".*part"))


def test_seeds_together_are_the_runs_alone(sources: Sources, tmp_path: Path) -> None:
    """Bitwise, on a CPU; also when one of them was killed earlier than the other."""
    names = ("image_auroc", "pixel_auroc", "pro_auc", "levels")
    together = train_categories(small_config(), sources, "grid", tmp_path / "both", (0, 1))
    assert list(together) == ["seed_0/grid", "seed_1/grid"]
    for seed in (0, 1):
        config = dataclasses.replace(small_config(), seed=seed)
        alone = train_categories(config, sources, "grid", tmp_path / f"alone_{seed}")["grid"]
        both = together[f"seed_{seed}/grid"]
        assert [both[k] for k in names] == [alone[k] for k in names]
        rows = [
            (tmp_path / place / "grid" / "scores.csv").read_text()
            for place in (f"both/seed_{seed}", f"alone_{seed}")
        ]
        assert rows[0] == rows[1]
    assert together["seed_0/grid"]["pixel_auroc"] != together["seed_1/grid"]["pixel_auroc"]
    shutil.rmtree(tmp_path / "both" / "seed_1" / "grid" / "checkpoints" / "30")
    resumed = train_categories(small_config(), sources, "grid", tmp_path / "both", (0, 1))
    for run_, found in resumed.items():
        assert [found[k] for k in names] == [together[run_][k] for k in names]
    again = evaluate_run(tmp_path / "both" / "seed_1", "grid", Sources())
    assert again["pixel_auroc"] == together["seed_1/grid"]["pixel_auroc"]


def test_evaluate_gives_the_same_from_the_runs_detector(sources: Sources, tmp_path: Path) -> None:
    """Checkpoints have no part in it, nor has the table of held-out scores."""
    trained = train_categories(small_config(), sources, "grid", tmp_path)["grid"]
    seconds = {"seconds"}
    shutil.rmtree(tmp_path / "grid" / "checkpoints")
    (tmp_path / "grid" / "normal_scores.csv").unlink()
    again = evaluate_run(tmp_path, "grid", Sources())
    for key in set(trained) - seconds:
        assert again[key] == json.loads(json.dumps(trained[key])), key
    assert again["seconds"]["train"] == trained["seconds"]["train"]
    resumed = train_categories(small_config(), sources, "grid", tmp_path)["grid"]
    assert resumed["image_auroc"] == trained["image_auroc"]


def test_evaluate_needs_the_workdir_alone(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained with relative paths and weights found through the environment."""
    monkeypatch.chdir(Path(sources.data_dir).parent)
    monkeypatch.setenv("PFM_JAX_WEIGHTS", "weights")
    trained = train_categories(small_config(steps=10), Sources("data"), "grid", tmp_path)["grid"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PFM_JAX_WEIGHTS")
    again = evaluate_run(tmp_path, "grid", Sources())
    assert again["image_auroc"] == trained["image_auroc"]


def test_what_would_waste_a_training_is_said(sources: Sources, tmp_path: Path) -> None:
    config = small_config(steps=10, learning_rate=dict.fromkeys(LEVELS, 1e38))
    with pytest.raises(InputError, match=r"not finite .*: lower train\.learning_rate"):
        train_categories(config, sources, "grid", tmp_path / "diverged")
    assert not list((tmp_path / "diverged" / "grid" / "checkpoints").glob("[0-9]*"))
    root = make_category(tmp_path / "data" / "grid")
    for mask in (root / "ground_truth" / "hole").iterdir():
        Image.new("L", (64, 64)).save(mask)
    with pytest.raises(InputError, match="no mask marks a pixel"):
        place = Sources(str(tmp_path / "data"), sources.weights_dir)
        train_categories(small_config(), place, "grid", tmp_path / "black")


def test_a_run_without_a_whole_detector_is_not_evaluated(sources: Sources, tmp_path: Path) -> None:
    """The same launch writes it again, from the checkpoint."""
    trained = train_categories(small_config(steps=10), sources, "grid", tmp_path)["grid"]
    path = tmp_path / "grid" / record.DETECTOR
    _, before = arrays.read(path)
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"detector\.safetensors: not a readable detector"):
        evaluate_run(tmp_path, "grid", sources)
    path.unlink()
    with pytest.raises(InputError, match=r"grid: the run is not finished; give its launch\.train"):
        evaluate_run(tmp_path, "grid", sources)
    again = train_categories(small_config(steps=10), sources, "grid", tmp_path)["grid"]
    assert arrays.read(path)[1] == before, "its recipe, its origin, the sha256 of its arrays"
    assert {**again, "seconds": None} == {**trained, "seconds": None}


def test_run_json_nests_what_the_run_is_made_from(sources: Sources, tmp_path: Path) -> None:
    train_categories(small_config(steps=2), sources, "grid", tmp_path)
    path = tmp_path / "grid" / record.RUN
    about = json.loads(path.read_text())
    assert about["status"] == "finished"
    kept = record.read_run(tmp_path / "grid")
    assert kept.to_json() == about["provenance"]
    assert kept.config == small_config(steps=2)
    assert kept.num_images == 6 and kept.weights_dir == sources.weights_dir
    for damaged in ("{", "[]", "{}", json.dumps(about["provenance"])):
        path.write_text(damaged)
        with pytest.raises(InputError, match=r"run\.json: not readable, or of another version"):
            load_detector(tmp_path, "grid")


def test_another_recipe_or_other_data_is_refused(sources: Sources, tmp_path: Path) -> None:
    train_categories(small_config(steps=10), sources, "grid", tmp_path / "run")
    with pytest.raises(InputError, match=r"config\.train\.steps was 10, now 20"):
        train_categories(small_config(steps=20), sources, "grid", tmp_path / "run")
    make_category(tmp_path / "data" / "grid", seed=5)
    elsewhere = Sources(str(tmp_path / "data"), sources.weights_dir)
    with pytest.raises(InputError, match="data was"):
        evaluate_run(tmp_path / "run", "grid", elsewhere)
    with pytest.raises(InputError, match="no run in it"):
        evaluate_run(tmp_path / "run", "tile", elsewhere)


def test_one_level_one_direction_whole_images_without_masks(
    sources: Sources, tmp_path: Path
) -> None:
    root = make_category(tmp_path / "data" / "grid")
    for mask in (root / "ground_truth" / "hole").iterdir():
        mask.unlink()
    config = replaced(
        small_config(sampling="images", batch_size=4, epochs=3),
        {
            "data.dataset": "folder",
            "mapping.directions": ("forward",),
            "mapping.latent": {"conv4_x": 8},
            "scoring.memory": False,
        },
    )
    place = Sources(str(tmp_path / "data"), sources.weights_dir)
    found = train_categories(config, place, "grid", tmp_path / "run")["grid"]
    assert found["pixel_auroc"] is found["pro_auc"] is None
    assert found["step"] == 6
    names = (*NAMES, "intervals")
    assert found["levels"] == {"conv4_x": {k: found[k] for k in names}}
    assert found["intervals"].keys() == {"image_auroc"}


def test_mvtec_loco_is_measured_by_kinds(sources: Sources, tmp_path: Path) -> None:
    root = make_loco(tmp_path / "loco")
    config = replaced(small_config(), {"data.dataset": "mvtec_loco", "data.held_out": 0.5})
    place = Sources(str(root), sources.weights_dir)
    found = train_categories(config, place, "all", tmp_path / "run")["breakfast_box"]
    assert found["counts"]["train"] == 4 and found["counts"]["held_out"] == 2
    kinds = found["kinds"]
    assert kinds.keys() == {"logical_anomalies", "structural_anomalies"}
    mean = np.mean([one["spro_auc_05"] for one in kinds.values()])
    assert found["spro_auc_05"] == pytest.approx(mean) and 0 <= mean <= 1
    assert found["levels"]["conv4_x"]["spro_auc_05"] is not None


NEW_PAIR = """
from pfm_jax.config import Config, DataConfig, MappingConfig, NetworksConfig, TrainConfig

def get_config() -> Config:
    return Config(
        name="new_pair",
        data=DataConfig(image_size=64),
        networks=NetworksConfig(source="resnet34", target="vgg16"),
        mapping=MappingConfig(latent={"conv3_x": 16, "conv4_x": 16}),
        train=TrainConfig(steps=60),
    )
"""


def test_a_new_pair_of_networks_is_one_config_file(sources: Sources, tmp_path: Path) -> None:
    """From the command line, to what a run leaves."""
    (tmp_path / "new_pair.py").write_text(NEW_PAIR)
    weights = make_weights(tmp_path / "weights", "resnet34", "vgg16")
    flags = {
        "config": tmp_path / "new_pair.py",
        "data_dir": sources.data_dir,
        "weights_dir": weights,
        "category": "tile",
        "workdir": tmp_path / "runs",
    }
    command = [sys.executable, "-m", "launch.train", *(f"--{k}={v}" for k, v in flags.items())]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "runs" / "tile" / "metrics.json").read_text())
    assert found["weights"].keys() == {"resnet34", "vgg16"}
    assert found["levels"].keys() == {"conv3_x", "conv4_x", "memory"}
    assert found["image_auroc"] == 1, "a red square on a grey grid"
    gallery = tmp_path / "runs" / "tile" / "gallery"
    for index, picture in enumerate(json.loads((gallery / "gallery.json").read_text())):
        assert picture["truth"]
        with Image.open(gallery / f"{index}.png") as strip:
            assert strip.size == (4 * 64, 64)
    steps = [line["step"] for line in record.read_curve(tmp_path / "runs" / "tile")]
    assert steps == [25, 50, 60]


def test_real_leather_by_real_networks(real_data: Path, real_weights: Path, tmp_path: Path) -> None:
    """A short run of the R18-R50 recipe already tells leather from damaged leather."""
    recipe = mb_pfm_r18_r50.get_config()
    fields = {"train.steps": 60, "train.positions": dict.fromkeys(recipe.levels, 256)}
    config = replaced(recipe, fields)
    sources = Sources(str(real_data), str(real_weights))
    found = train_categories(config, sources, "leather", tmp_path)["leather"]
    assert found["image_auroc"] > 0.95
    assert found["pixel_auroc"] > 0.98
    assert found["pro_auc"] > 0.95
    scores = np.loadtxt(tmp_path / "leather" / "scores.csv", delimiter=",", skiprows=1, usecols=1)
    assert (scores > 0).all() and (scores < 20).all()
