"""Programs that a launch compiles: few, none for a second data set, none in a second process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.synthetic import make_category, make_weights

ROOT = Path(__file__).parents[2]
MOST_PROGRAMS = 8
AHEAD = {f"jit({name})" for name in ("steps_on_device", "fit_on_device", "choose", "score_batch")}


def programs(place: Path, *arguments: str, accelerators: int = 0) -> dict[str, Any]:
    """Runs `tests.programs`, with a cache of programs in `place`, and reads what it prints."""
    passing = [f"accelerators={accelerators}"] * bool(accelerators)
    command = [sys.executable, "-m", "tests.programs", *passing, *arguments]
    environment = {**os.environ, "PFM_JAX_CACHE": str(place / "cache"), "JAX_PLATFORMS": "cpu"}
    for name in ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"):
        environment.pop(name, None)
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "was not compiled ahead" not in done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def launch(
    place: Path, category: str, workdir: str, *options: str, accelerators: int = 0
) -> dict[str, Any]:
    flags = [
        "--config=tests/small_run.py",
        *("--config.train.steps=60", "--config.scoring.memory=true"),
        *(f"--category={category}", "--seeds=0,1"),
        *(f"--data_dir={place / 'data'}", f"--weights_dir={place / 'weights'}"),
        f"--workdir={place / workdir}",
    ]
    return programs(place, *flags, *options, accelerators=accelerators)


def test_few_programs_serve_all_data_sets_and_the_next_process(tmp_path: Path) -> None:
    """Four data sets of four sizes, in training and in test images, and two seeds."""
    for index, (good, bad) in enumerate(((11, 4), (14, 9), (21, 6), (31, 2))):
        make_category(tmp_path / "data" / "abcd"[index], good=good, bad=bad, seed=1000 * index)
    make_weights(tmp_path / "weights", "resnet18", "resnet18_caffe")
    first = launch(tmp_path, "all", "first")
    names = first["names"]
    assert len(names) == len(set(names)) == first["misses"], f"twice or not kept: {names}"
    assert len(names) <= MOST_PROGRAMS, names
    again = launch(tmp_path, "all", "again")
    assert again["misses"] == 0
    results = [tmp_path / one / "seed_1" / "c" / "scores.csv" for one in ("first", "again")]
    assert results[0].read_text() == results[1].read_text()


def test_accelerators_compile_ahead_what_runs_and_find_the_same(tmp_path: Path) -> None:
    """The programs are found in the cache when they are called, to the last detail. Seeds train as
    a group there, images come in other batches, and metrics are the device's.
    """
    make_category(tmp_path / "data" / "a", good=11, bad=4)
    make_weights(tmp_path / "weights", "resnet18", "resnet18_caffe")
    exact = "--config.train.precision=float32", "--config.scoring.precision=float32"
    launch(tmp_path, "a", "cpu", *exact)
    for count in (1, 4):
        names = launch(tmp_path, "a", f"on_{count}", *exact, accelerators=count)["names"]
        assert len(names) == len(set(names)), f"compiled ahead, and once more: {names}"
        assert {*AHEAD, "jit(judge)", "jit(_areas)"} <= set(names)
        for seed in ("seed_0", "seed_1"):
            one, other = (
                json.loads((tmp_path / place / seed / "a" / "metrics.json").read_text())
                for place in (f"on_{count}", "cpu")
            )
            for name in ("image_auroc", "pixel_auroc", "pro_auc"):
                assert one[name] == pytest.approx(other[name], abs=2e-3), (count, name)


@pytest.mark.parametrize("count", [1, 4])
def test_fit_compiles_ahead_what_runs(count: int, tmp_path: Path) -> None:
    good = make_category(tmp_path / "a", good=11) / "train" / "good"
    weights = make_weights(tmp_path / "weights", "resnet18", "resnet18_caffe")
    names = programs(tmp_path, "fit", str(good), str(weights), accelerators=count)["names"]
    assert set(names) >= AHEAD
    assert len(names) == len(set(names)), f"compiled ahead, and once more: {names}"
