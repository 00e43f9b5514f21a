"""Several devices, several processes: the same as one, to rounding."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from pfm_jax import training as train
from pfm_jax.backbones.networks import load_networks
from pfm_jax.datasets.inputs import examples
from pfm_jax.inference import artifact, detector, export
from pfm_jax.metrics import NAMES, SELDOM
from pfm_jax.model import features, heads, scoring
from pfm_jax.model.problem import make_extent, mapping_problem
from pfm_jax.runs import learning, run
from pfm_jax.runs.fit import make_detector
from pfm_jax.system import devices
from pfm_jax.training import cache, loop, memory
from pfm_jax.types import Sources
from tests.parity.goldens.seeded import seeded_bytes
from tests.synthetic import LEVELS, make_sources, small_config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return make_sources(tmp_path_factory.mktemp("sharding"))


def use(count: int, patch: pytest.MonkeyPatch) -> None:
    """From now on there are so many devices (fake ones, of one CPU)."""
    some = jax.devices()[:count]
    patch.setattr(devices, "devices", lambda: some)
    for function in (loop.steps_on_device, cache._store_on_device, cache._zeros, scoring.fuse):
        function.clear_cache()
    features.extract.clear_cache()
    detector.score_batch.clear_cache()


def whole(sources: Sources, steps: int) -> dict[str, object]:
    """Everything from images to scores: rows, losses, parameters, statistics, scores."""
    config = small_config(steps=steps, precision="float32")
    networks, _ = load_networks(config.networks, config.levels, sources.weights_dir)
    dataset = run.load_dataset(config, "grid", sources)
    rows = learning.build_cache(config, networks, dataset.train)
    problem, channels = mapping_problem(config), features.feature_channels(networks, LEVELS)
    extent = make_extent(problem, len(dataset.train))
    state = train.init_state(config.seed, channels, problem, extent)
    (state,), losses = loop.train([state], rows, problem)
    learned, running = heads.split(state.heads)
    assert rows.candidates is not None
    model = learning.model_of(config, state, memory.fit(rows.candidates))
    trained = make_detector(networks, model, config, [], {})
    found = {
        "rows": rows.rows,
        "losses": losses,
        "learned": learned,
        "statistics": {k: dataclasses.replace(h, expected={}) for k, h in running.items()},
        "expected": {k: head.expected for k, head in running.items()},
        "adam": state.opt_state,
        "memory": model.memory,
        "scores": trained.image_scores(dataset.test),
    }
    return jax.device_get(found)


def greatest_difference(ours: object, theirs: object) -> float:
    """Greatest difference of any two numbers, relative to the greatest of all."""
    pairs = list(zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True))
    scale = max(float(np.abs(b).max()) for _, b in pairs)
    return max(float(np.abs(a - b).max()) for a, b in pairs) / scale


@pytest.fixture(scope="module")
def alone(sources: Sources) -> dict[str, dict[str, object]]:
    with pytest.MonkeyPatch.context() as patch:
        use(1, patch)
        found = {"gradient": whole(sources, 1)}
        with jax.enable_x64(True):
            found["run"] = whole(sources, 50)
        return found


@pytest.mark.parametrize("count", [2, 8])
def test_devices_give_what_one_gives(
    count: int,
    sources: Sources,
    alone: dict[str, dict[str, object]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After one step the gradients (they are Adam's moments) and BatchNorm's statistics; after 50
    everything, in float64: Adam divides gradients by their size, and so blows rounding up where
    they are zero (biases in front of a BatchNorm).
    """
    use(count, monkeypatch)
    step = whole(sources, 1)
    for name in ("rows", "losses", "statistics", "adam"):
        assert greatest_difference(step[name], alone["gradient"][name]) < 1e-5, name
    with jax.enable_x64(True):
        after = whole(sources, 50)
    for name, expected in alone["run"].items():
        assert greatest_difference(after[name], expected) < 1e-5, name
    use(1, monkeypatch)


def test_a_detector_and_an_artefact_score_on_every_device(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Batch prediction, the library and the service call these; eleven images, two batches."""
    config = small_config(precision="float32")
    networks, _ = load_networks(config.networks, config.levels, sources.weights_dir)
    model, record = scoring.untrained(networks, config), detector.Record(config)
    images = seeded_bytes((11, config.data.image_size, config.data.image_size, 3))
    found = []
    for count in (1, 4):
        use(count, monkeypatch)
        own = detector.assemble(networks, devices.replicate(model), record)
        if count == 1:
            export.write(own, None, examples(list(images)), tmp_path / "grid.pfm")
        for scorer in (own.scorer(), artifact.load(tmp_path / "grid.pfm")):
            placed = scorer.score_batch(devices.shard_batch(images[:8]))[1]
            assert len(placed.sharding.device_set) == count
            assert placed.sharding.is_fully_replicated == (count == 1)
            found.append(scorer.score(images))
    for scores, maps in found[1:]:
        np.testing.assert_allclose(scores, found[0][0], rtol=1e-5)
        np.testing.assert_allclose(maps, found[0][1], rtol=1e-5, atol=1e-6)
    use(1, monkeypatch)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def start(
    sources: Sources, workdir: Path, processes: int, steps: int = 50, *, memory: bool = False
) -> list[subprocess.Popen[str]]:
    """`launch.train` by so many processes on loopback, each with one device and a cache."""
    port, started = free_port(), []
    for number in range(processes):
        environment = {
            **os.environ,
            "PFM_JAX_CACHE": str(workdir.parent / "cache"),
            "JAX_PLATFORMS": "cpu",
        }
        command = [
            *(sys.executable, "-m", "launch.train", "--config=tests/small_run.py"),
            *(f"--config.train.steps={steps}", "--config.train.precision=float32"),
            "--config.train.checkpoint_every=25",
            *("--config.scoring.precision=float32", f"--config.scoring.memory={memory}"),
            "--config.seed=1",  # a head of seed 0 amplifies rounding a hundredfold
            *(f"--data_dir={sources.data_dir}", f"--weights_dir={sources.weights_dir}"),
            *("--category=grid", f"--workdir={workdir}"),
            *[f"--distributed=127.0.0.1:{port},{number},{processes}"] * (processes > 1),
        ]
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        started.append(subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes))
    return started


def finished(started: list[subprocess.Popen[str]]) -> None:
    """Waits for processes that all end well."""
    errors = [process.communicate(timeout=150)[1] for process in started]
    for process, error in zip(started, errors, strict=True):
        assert process.returncode == 0, error[-3000:]


def launch(sources: Sources, workdir: Path, processes: int) -> None:
    finished(start(sources, workdir, processes, memory=True))


def test_one_sigterm_ends_all_processes(sources: Sources, tmp_path: Path) -> None:
    """Both save and exit with 0; resumed, the run is bitwise what an undisturbed one is."""
    finished(start(sources, tmp_path / "whole", 2, steps=75))
    processes = start(sources, tmp_path / "run", 2, steps=75)
    curve = tmp_path / "run" / "grid" / "metrics.jsonl"
    while not curve.is_file() and processes[1].poll() is None:
        time.sleep(0.01)
    processes[1].send_signal(signal.SIGTERM)
    finished(processes)
    assert not (tmp_path / "run" / "grid" / "metrics.json").exists()
    saved = [int(path.name) for path in (tmp_path / "run/grid/checkpoints").glob("[0-9]*")]
    assert 0 < max(saved) < 75
    finished(start(sources, tmp_path / "run", 2, steps=75))
    whole, resumed = (tmp_path / one / "grid" / "scores.csv" for one in ("whole", "run"))
    assert whole.read_text() == resumed.read_text()


def test_two_processes_are_one_run(sources: Sources, tmp_path: Path) -> None:
    """Each reads its share, the first writes; what they leave one process goes on from."""
    launch(sources, tmp_path / "one", 1)
    launch(sources, tmp_path / "two", 2)
    results = [
        json.loads((tmp_path / name / "grid" / "metrics.json").read_text())
        for name in ("one", "two")
    ]
    for name in NAMES.keys() - SELDOM:
        assert results[0][name] == pytest.approx(results[1][name], abs=1e-4), name
    scores = [
        np.loadtxt(tmp_path / name / "grid" / "scores.csv", delimiter=",", skiprows=1, usecols=1)
        for name in ("one", "two")
    ]
    np.testing.assert_allclose(scores[1], scores[0], rtol=1e-4)
    again = run.evaluate_run(tmp_path / "two", "grid", Sources())
    assert again["pixel_auroc"] == pytest.approx(results[1]["pixel_auroc"], abs=1e-5)
    assert not list((tmp_path / "two").rglob("*.part"))
