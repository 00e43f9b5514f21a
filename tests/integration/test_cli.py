"""The launchers as commands: help exits 0, bad input is one line and exit code 2."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.synthetic import make_category, make_weights

ROOT = Path(__file__).parents[2]
LAUNCHERS = (
    *("train", "evaluate", "quickstart", "port_weights", "sweep", "report", "track"),
    *("predict", "export", "serve", "proxy", "cache"),
)
RECIPE = "--config=configs/mb_pfm_r18_r50.py"


def launch(name: str, *flags: str, cwd: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", f"launch.{name}", *flags]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, env=environment)


@pytest.mark.parametrize("name", LAUNCHERS)
def test_help(name: str) -> None:
    done = launch(name, "--help")
    assert done.returncode == 0, done.stderr
    assert f"python -m launch.{name}" in done.stdout
    assert "--" in done.stdout.split("python -m")[1]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((RECIPE, "--workdir=W"), "category"),
        ((RECIPE, "--category=a", "--workdir=W"), "data_dir is not set"),
        (
            (RECIPE, "--category=a", "--workdir=W", "--data_dir=nowhere"),
            "nowhere: no such folder",
        ),
        ((RECIPE, "--category=a", "--workdir=W", "--config.train.stepz=3"), "stepz"),
        ((RECIPE, "--category=a", "--workdir=W", "--config.train.steps=few"), "few"),
        ((RECIPE, "--category=a", "--workdir=W", "--config.train.steps=-3"), "train.steps=-3"),
        ((RECIPE, "--category=a", "--workdir=W", "--config.train.positions.conv9=3"), "conv9"),
        ((RECIPE, "--category=a", "--workdir=W", "--colour=red"), "colour"),
        ((RECIPE, "--category=a", "--workdir=W", "screw"), "screw"),
        (("--config=configs/none.py", "--category=a", "--workdir=W"), "configs/none.py"),
        (("--config=README.md", "--category=a", "--workdir=W"), "not a Python file"),
        (("--config=launch/common/values.py", "--category=a", "--workdir=W"), "get_config"),
        (("--category=a", "--workdir=W"), "config"),
    ],
)
def test_bad_flags_are_one_line(flags: tuple[str, ...], message: str, tmp_path: Path) -> None:
    done = launch("train", *(flag.replace("=W", f"={tmp_path}/run") for flag in flags))
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert done.stderr.startswith("error: ")
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "run").exists()


SWEEP = "--config=tests/small_sweep.py"


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("sweep", (RECIPE,), "does not return a pfm_jax SweepConfig"),
        ("sweep", (SWEEP, "--seeds=0,x"), "seeds: 'x' is not a whole number"),
        ("sweep", (SWEEP, "--data_dir=D", "--cases=nine"), "cases: unknown nine; choose from pfm"),
        ("sweep", (SWEEP, "--data_dir=D", "--categories=gird"), "did you mean grid?"),
        ("sweep", (SWEEP, "--data_dir=D", "--engine=slurm"), "slurm"),
        ("report", (), "no sweep found"),
        ("track", (), "no run below it"),
    ],
)
def test_bad_flags_of_sweeps_are_one_line(
    name: str, flags: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    make_category(tmp_path / "data" / "grid")
    flags = (*flags, f"--workdir={tmp_path}/run")
    done = launch(name, *(flag.replace("=D", f"={tmp_path}/data") for flag in flags))
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("predict", ("--images=I", "--output=O"), "no detector given"),
        ("predict", ("--images=I", "--output=O", "--workdir=W"), "no detector given"),
        ("predict", ("--output=O", "--artifact=A"), "images"),
        (
            "predict",
            ("--images=I", "--output=O", "--workdir=W", "--category=grid"),
            "grid: no run in it",
        ),
        ("predict", ("--images=I", "--output=O", "--artifact=A"), "not a readable detector"),
        ("export", ("--output=O",), "no detector given"),
        ("export", ("--output=O", "--artifact=A"), "not a readable detector"),
        ("serve", ("--artifact=A",), "not a readable detector"),
        ("serve", ("--artifact=A", "--port=0"), "port"),
    ],
)
def test_bad_flags_of_detectors_are_one_line(
    name: str, flags: tuple[str, ...], message: str, tmp_path: Path
) -> None:
    places = {"=I": "/images", "=O": "/out", "=W": "/run", "=A": "/no.pfm"}
    for short, place in places.items():
        flags = tuple(flag.replace(short, f"={tmp_path}{place}") for flag in flags)
    done = launch(name, *flags)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr
    assert not list(tmp_path.iterdir())


def test_train_predict_export_and_predict_again(tmp_path: Path) -> None:
    """The plant engineer's week on made-up images: the file gives what the run gives."""
    make_category(tmp_path / "data" / "grid", good=40)
    make_weights(tmp_path / "weights", "resnet18", "resnet18_caffe")
    (tmp_path / "recipe.py").write_text("from tests.synthetic import small_config as get_config\n")
    run = (f"--workdir={tmp_path}/run", "--category=grid")
    done = launch(
        "train",
        f"--config={tmp_path}/recipe.py",
        "--config.data.held_out=0.5",
        f"--data_dir={tmp_path}/data",
        f"--weights_dir={tmp_path}/weights",
        *run,
    )
    assert done.returncode == 0, done.stderr
    images = f"--images={tmp_path}/data/grid/test"
    done = launch("predict", *run, images, f"--output={tmp_path}/a", "--maps", "--overlays")
    assert done.returncode == 0, done.stderr
    assert "5.00% false alarms" in done.stdout and "7 new" in done.stdout
    done = launch("export", *run, f"--output={tmp_path}/grid.pfm", "--false_positive_rate=0.1")
    assert done.returncode == 0, done.stderr
    assert "10.00% false alarms" in done.stdout
    done = launch("export", *run, f"--output={tmp_path}/rare.pfm", "--false_positive_rate=0.01")
    assert done.returncode == 2 and "needs 99 normal images" in done.stderr
    (tmp_path / "data" / "grid" / "test" / "hole" / "bad.png").write_bytes(b"")
    done = launch("predict", f"--artifact={tmp_path}/grid.pfm", images, f"--output={tmp_path}/b")
    assert done.returncode == 1, done.stderr
    assert "1 unreadable" in done.stdout
    tables = []
    for name in ("a", "b"):
        with (tmp_path / name / "scores.csv").open() as rows:
            tables.append({row["path"]: row for row in csv.DictReader(rows)})
    unreadable = tables[1].pop(f"{tmp_path}/data/grid/test/hole/bad.png")
    assert "not a readable image" in unreadable["error"]
    assert tables[0].keys() == tables[1].keys()
    for path, row in tables[0].items():
        assert float(row["score"]) == pytest.approx(float(tables[1][path]["score"]), abs=1e-5)
        assert row["is_anomalous"] == str("hole" in path)
        assert (tmp_path / "a" / "maps" / path.split("test/")[1]).with_suffix(".tiff").is_file()


def test_the_cache_is_shown_and_emptied(cache: Path) -> None:
    (cache / "unpacked").mkdir(parents=True)
    (cache / "unpacked" / "a").write_bytes(bytes(3_000_000))
    done = launch("cache")
    assert done.returncode == 0, done.stderr
    place, *table = done.stdout.splitlines()
    assert place == str(cache)
    assert [row.split() for row in table] == [["unpacked", "3.0", "MB"], ["total", "3.0", "MB"]]
    done = launch("cache", "--clear")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "freed 3.0 MB"
    assert not list(cache.iterdir())


def test_missing_weights_are_one_line(tmp_path: Path) -> None:
    make_category(tmp_path / "data" / "grid")
    make_weights(tmp_path / "weights", "resnet34")
    done = launch(
        "train",
        RECIPE,
        "--config.networks.source=efficientnet_lite9",
        f"--data_dir={tmp_path}/data",
        "--category=grid",
        f"--weights_dir={tmp_path}/weights",
        f"--workdir={tmp_path}/run",
    )
    assert done.returncode == 2
    assert "unknown network 'efficientnet_lite9'" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1, done.stderr


def test_port_weights(tmp_path: Path) -> None:
    source = make_weights(tmp_path, "resnet18") / "resnet18.safetensors"
    target = tmp_path / "out.safetensors"
    done = launch("port_weights", "--arch=resnet18", f"--input={source}", f"--output={target}")
    assert done.returncode == 0, done.stderr
    assert target.is_file()
    done = launch("port_weights", "--arch=resnet34", f"--input={source}", f"--output={target}")
    assert done.returncode == 2
    assert "not the weights of resnet34" in done.stderr


def test_workdir_that_is_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("")
    make_category(tmp_path / "data" / "grid")
    weights = make_weights(tmp_path / "weights", "resnet18", "resnet50")
    places = (
        f"--data_dir={tmp_path}/data",
        f"--weights_dir={weights}",
        f"--workdir={tmp_path}/run",
    )
    done = launch("train", RECIPE, "--category=grid", *places)
    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith("error: ")
    assert str(tmp_path / "run") in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
