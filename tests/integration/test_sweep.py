"""A sweep on made-up images: few runs for many cells, done once, whatever happens to it."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pfm_jax.config import SweepConfig
from pfm_jax.metrics import PAPER_METRICS
from pfm_jax.runs.train import train_categories
from pfm_jax.sweeps import engines, results
from pfm_jax.sweeps import jobs as sweep
from pfm_jax.sweeps.plan import Plan, jobs, make_plan, replaced
from pfm_jax.sweeps.report import page
from pfm_jax.types import LEVELS, Sources
from tests.small_sweep import CASES, small_sweep
from tests.synthetic import make_sources, small_config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """Two categories and the weights of one pair; of resnet34 there are none."""
    place = tmp_path_factory.mktemp("sources")
    found = make_sources(place)
    (place / "weights" / "resnet34.safetensors").write_bytes(b"none")
    return found


@pytest.fixture(scope="module")
def swept(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path]:
    """All jobs of two seeds done."""
    plan, workdir = make_plan(small_sweep(), ("grid", "tile"), (0, 1)), tmp_path_factory.mktemp("w")
    (workdir / "sweep.json").write_text(json.dumps(plan.to_json()))
    for job in jobs(plan):
        sweep.run_job(plan, job, sources, workdir)
    return plan, workdir


def test_every_cell_is_done_or_says_why_not(swept: tuple[Plan, Path]) -> None:
    plan, workdir = swept
    found = results.cells(plan, workdir)
    assert len(found) == len(CASES) * 2 * 2
    for cell in found:
        assert (cell.metrics is None) == (cell.case == "unknown"), cell
    assert results.failures(found) == []
    text = results.summary(found)
    assert "20 done, 4 missing, 0 failed cells" in text
    assert re.search(r"missing: unknown: .*resnet34\.safetensors", text)


def test_a_cell_is_what_training_its_case_alone_gives(
    swept: tuple[Plan, Path], sources: Sources, tmp_path: Path
) -> None:
    """Sharing features, and heads with other levels, changes nothing."""
    plan, workdir = swept
    cells = {(c.case, c.category, c.seed): c for c in results.cells(plan, workdir)}
    for case in ("pfm", "deep", "two", "random"):
        config = replaced(small_sweep().base, {**CASES[case], "seed": 1})
        alone = train_categories(config, sources, "tile", tmp_path / case)["tile"]
        for metric in (*PAPER_METRICS, "image_ap"):
            found = cells[case, "tile", 1].metrics[metric]
            assert found == pytest.approx(alone[metric], abs=1e-6), (case, metric)


def test_what_is_done_is_not_done_again(swept: tuple[Plan, Path], sources: Sources) -> None:
    plan, workdir = swept
    before = {path: path.stat().st_mtime_ns for path in workdir.rglob("metrics.json")}
    for job in jobs(plan):
        sweep.run_job(plan, job, sources, workdir)
    assert before == {path: path.stat().st_mtime_ns for path in workdir.rglob("metrics.json")}


def test_a_failed_run_is_reported_and_the_others_go_on(sources: Sources, tmp_path: Path) -> None:
    rates = dict.fromkeys(LEVELS, 1e30)
    config = SweepConfig(
        "small",
        small_config(),
        {
            "bad": {"train.learning_rate": rates},
            "good": {},
        },
    )
    plan = make_plan(config, ("grid",), (0,))
    for job in jobs(plan):
        sweep.run_job(plan, job, sources, tmp_path)
    bad, good = results.cells(plan, tmp_path)
    assert good.metrics
    assert not bad.missing
    assert "not finite" in bad.reason
    assert results.failures([bad, good]) == [bad]


def command(sources: Sources, workdir: Path, *more: str) -> list[str]:
    return [
        *(sys.executable, "-m", "launch.sweep", "--config=tests/small_sweep.py"),
        *(f"--data_dir={sources.data_dir}", f"--weights_dir={sources.weights_dir}"),
        *("--categories=grid", "--seeds=0", f"--workdir={workdir}", *more),
    ]


def test_a_killed_sweep_ends_as_an_undisturbed_one(
    swept: tuple[Plan, Path], sources: Sources, tmp_path: Path
) -> None:
    """SIGKILL once the first checkpoint is there; its job dies with it; the rest is done after."""
    first = subprocess.Popen(command(sources, tmp_path), cwd=ROOT, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob("*/seed_0/grid/checkpoints/10")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert not list(tmp_path.glob("whole/seed_0/grid/metrics.json")), "killed before the end"
    done = subprocess.run(
        command(sources, tmp_path), cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "5 done, 1 missing, 0 failed cells" in done.stdout
    plan, workdir = swept
    undisturbed = {(c.case, c.category, c.seed): c.metrics for c in results.cells(plan, workdir)}
    for cell in results.cells(results.read_plan(tmp_path), tmp_path):
        if cell.metrics:
            expected = undisturbed[cell.case, cell.category, cell.seed]
            assert [cell.metrics[m] for m in PAPER_METRICS] == [expected[m] for m in PAPER_METRICS]


def test_a_job_that_dies_is_reported(tmp_path: Path) -> None:
    plan = make_plan(small_sweep(), ("grid",), (0,), ["whole"])
    outcomes = engines.local(
        jobs(plan), lambda job: [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    )
    assert outcomes == ["process exited with code -9"]
    job = jobs(plan)[0]
    todo = sweep.unfinished(plan, job, tmp_path)
    sweep.fail(plan, job.category, todo, tmp_path, outcomes[0])
    assert results.cells(plan, tmp_path)[0].reason == "process exited with code -9"


def test_ray_gives_the_same(swept: tuple[Plan, Path], sources: Sources, tmp_path: Path) -> None:
    """Two workers, each its own process; `unknown` is left out: it is the same without."""
    pytest.importorskip("ray", reason="ray is an extra")
    done = subprocess.run(
        command(sources, tmp_path, "--engine=ray", "--cases=whole,random"),
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    _, workdir = swept
    for case in ("whole", "random"):
        ours, theirs = (
            json.loads((place / case / "seed_0" / "grid" / "metrics.json").read_text())
            for place in (tmp_path, workdir)
        )
        assert [ours[m] for m in PAPER_METRICS] == [theirs[m] for m in PAPER_METRICS]


def test_the_page_is_whole(swept: tuple[Plan, Path]) -> None:
    """Every table has its numbers, nothing is fetched from elsewhere, and missing says missing."""
    plan, workdir = swept
    text = page.write(workdir).read_text()
    assert not re.findall(r"""(?:src|href)=["'](?!data:|#)[^"']+""", text)
    for word in ("<html lang", 'name="viewport"', "Table III", "missing", "published"):
        assert word in text
    assert "Table VII" not in text, "none of the cases is one of the paper's"
    assert text.count("<svg") == text.count('role="img"')
    assert text.count("<img") == text.count("alt=") > 4
    with (workdir / "results_image_auroc.csv").open() as file:
        rows = {row["category"]: row for row in csv.DictReader(file)}
    values = [c.metrics for c in results.cells(plan, workdir) if c.case == "whole"]
    mean = 100 * np.mean([v["image_auroc"] for v in values])
    assert rows["mean of 2"]["whole"].startswith(f"{mean:.1f} ± ")
    assert rows["grid"]["unknown"] == "missing"
    assert text.index('id="results"') < text.index('id="results_pro_auc"') < text.index("Table III")
    with (workdir / "cells.csv").open() as file:
        cells = list(csv.DictReader(file))
    assert len(cells) == len(CASES) * 4
    for row in cells:
        if row["case"] == "whole":
            low, value, high = (float(row[f"pro_auc{end}"]) for end in ("_low", "", "_high"))
            assert low <= value <= high
    with (workdir / "table_iii_image_auroc.csv").open() as file:
        by_name = {row["category"]: row for row in csv.DictReader(file)}
    published = {name: row["MB-PFM (published)"] for name, row in by_name.items()}
    assert published == {"grid": "98.0", "tile": "99.6", "mean of 2": "98.8"}
