"""Workdirs in a bucket of an S3 server on loopback (moto), killed and resumed."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pfm_jax.metrics import PAPER_METRICS
from pfm_jax.runs.train import train_categories
from pfm_jax.sweeps.jobs import run_job
from pfm_jax.sweeps.plan import jobs, make_plan, replaced
from pfm_jax.types import Sources
from tests import small_run
from tests.small_sweep import small_sweep
from tests.synthetic import make_sources

boto3 = pytest.importorskip("boto3", reason="s3 is an extra")

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return make_sources(tmp_path_factory.mktemp("sources"))


@pytest.fixture(scope="module")
def bucket() -> Iterator[Any]:
    """An empty bucket; the commands find its server through the environment."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    url, key = f"http://127.0.0.1:{port}", "none"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setenv("AWS_ACCESS_KEY_ID", key)
        patch.setenv("AWS_SECRET_ACCESS_KEY", key)
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        while server.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.1)
        found = boto3.resource("s3").Bucket("runs")
        found.create()
        yield found
    server.terminate()
    server.wait()


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    output, errors = process.communicate(timeout=600)
    assert process.returncode == code, errors
    return output + errors


def command(launcher: str, sources: Sources, workdir: str | Path, *more: str) -> tuple[str, ...]:
    data, weights = f"--data_dir={sources.data_dir}", f"--weights_dir={sources.weights_dir}"
    return (f"launch.{launcher}", data, weights, f"--workdir={workdir}", *more)


def exists(bucket: Any, key: str) -> bool:
    return any(entry.key == key for entry in bucket.objects.filter(Prefix=key))


def read(bucket: Any, key: str) -> Any:
    return json.loads(bucket.Object(key).get()["Body"].read())


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not happened():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.05)


def test_a_killed_sweep_in_a_bucket_ends_as_an_undisturbed_one(
    bucket: Any, sources: Sources, tmp_path: Path
) -> None:
    """SIGKILL once one category is done; it is not done again, and the report finds all."""
    grid = ("--config=tests/small_sweep.py", "--cases=pfm", "--categories=grid,tile", "--seeds=0")
    plan = make_plan(small_sweep(), ("grid", "tile"), (0,), ["pfm"])
    for job in jobs(plan):
        run_job(plan, job, sources, tmp_path)
    first = start(*command("sweep", sources, "s3://runs/sweep", *grid))
    done_key = "sweep/pfm/seed_0/grid/metrics.json"
    wait_for(lambda: exists(bucket, done_key), first)
    os.kill(first.pid, signal.SIGKILL)
    first.communicate()
    done = bucket.Object(done_key).last_modified
    assert not exists(bucket, "sweep/pfm/seed_0/tile/metrics.json")

    told = finish(start(*command("sweep", sources, "s3://runs/sweep", *grid)))
    assert "2 done, 0 missing, 0 failed cells" in told
    assert bucket.Object(done_key).last_modified == done
    for category in ("grid", "tile"):
        own = read(bucket, f"sweep/pfm/seed_0/{category}/metrics.json")
        alone = json.loads((tmp_path / "pfm" / "seed_0" / category / "metrics.json").read_text())
        assert [own[m] for m in PAPER_METRICS] == [alone[m] for m in PAPER_METRICS]

    report = finish(start("launch.report", "--workdir=s3://runs/sweep"))
    assert "s3://runs/sweep/report.html" in report
    assert b"tile" in bucket.Object("sweep/report.html").get()["Body"].read()


def test_a_preempted_run_in_a_bucket_goes_on(
    bucket: Any, sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SIGTERM saves and uploads; another machine resumes there, and scores with its detector."""
    run = ("--config=tests/small_run.py", "--config.train.steps=100", "--category=grid")
    config = replaced(small_run.get_config(), {"train.steps": 100})
    train_categories(config, sources, "grid", tmp_path)
    (tmp_path / "temporary").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    first = start(*command("train", sources, "s3://runs/one", *run))
    wait_for(lambda: any(tmp_path.glob("temporary/*/grid/metrics.jsonl")), first)
    os.kill(first.pid, signal.SIGTERM)
    finish(first)
    assert not any((tmp_path / "temporary").iterdir()), "all is in the bucket"
    assert not exists(bucket, "one/grid/metrics.json")

    told = finish(start(*command("train", sources, "s3://runs/one", *run)))
    assert "grid: resumed at step" in told
    scores = bucket.Object("one/grid/scores.csv").get()["Body"].read()
    assert scores == (tmp_path / "grid" / "scores.csv").read_bytes()
    # Two checkpoints, as on a disk: those that are removed there are removed here.
    keys = [entry.key for entry in bucket.objects.filter(Prefix="one/grid/checkpoints/")]
    assert len({key.split("/")[3] for key in keys}) == 2

    images = ("--threshold=0.1", f"--images={sources.data_dir}/grid/test/good")
    place = (f"--weights_dir={sources.weights_dir}", "--category=grid", f"--output={tmp_path}/out")
    finish(start("launch.predict", "--workdir=s3://runs/one", *place, *images))
    assert (tmp_path / "out" / "scores.csv").exists()


def test_a_bucket_that_does_not_exist_is_told(bucket: Any, sources: Sources) -> None:
    run = ("--config=tests/small_run.py", "--category=grid")
    told = finish(start(*command("train", sources, "s3://nowhere/runs", *run)), code=2)
    error = "error: s3://nowhere/runs: can't be written (The specified bucket does not exist)"
    assert told.strip().splitlines()[-1] == error
