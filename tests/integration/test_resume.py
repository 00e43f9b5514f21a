"""Runs that are killed, stopped, damaged, crowded or out of room: nothing wrong, nothing lost."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import orbax.checkpoint as ocp
import pytest

from pfm_jax.model import features
from pfm_jax.runs import record
from pfm_jax.runs.train import train_categories
from pfm_jax.system import files
from pfm_jax.training import cache
from pfm_jax.types import InputError, Sources
from tests import kill
from tests.synthetic import make_sources, small_config

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return make_sources(tmp_path_factory.mktemp("resume"))


@pytest.fixture(scope="module")
def undisturbed(sources: Sources, tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    workdir = tmp_path_factory.mktemp("undisturbed")
    train_categories(small_config(), sources, "grid", workdir)
    return kill.ending(workdir)


def test_killed_at_random_moments_it_ends_the_same(tmp_path: Path) -> None:
    """A few of the thirty times of `python -m tests.kill`."""
    make_sources(tmp_path)
    done, _ = kill.killed(tmp_path, 2, False, random.Random(1))
    assert done == 2


def data_files(step: Path) -> list[Path]:
    return sorted((p for p in step.rglob("d/*") if p.is_file()), key=lambda p: p.stat().st_size)


def cut(step: Path) -> None:
    largest = data_files(step)[-1]
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])


def flip(step: Path) -> None:
    largest = data_files(step)[-1]
    content = bytearray(largest.read_bytes())
    content[:: len(content) // 100] = bytes(x ^ 1 for x in content[:: len(content) // 100])
    largest.write_bytes(content)


def lose(step: Path) -> None:
    data_files(step)[-1].unlink()


def empty(step: Path) -> None:
    for path in data_files(step):
        path.write_bytes(b"")


def other_checksum(step: Path) -> None:
    path = step / "provenance" / "metadata"
    about = json.loads(path.read_text())
    path.write_text(json.dumps({**about, "sha256": "0" * 64}))


def torn_provenance(step: Path) -> None:
    path = step / "provenance" / "metadata"
    path.write_text(path.read_text()[:40])


@pytest.mark.parametrize("fault", [cut, flip, lose, empty, other_checksum, torn_provenance])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_used(
    fault: Callable[[Path], None],
    sources: Sources,
    undisturbed: dict[str, object],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    train_categories(small_config(), sources, "grid", tmp_path)
    fault(tmp_path / "grid" / "checkpoints" / "30")
    with caplog.at_level("WARNING", logger="pfm_jax"):
        train_categories(small_config(), sources, "grid", tmp_path)
    (warning,) = [r.message for r in caplog.records if r.name.startswith("pfm_jax")]
    assert "step 30 is damaged" in warning and "\n" not in warning
    assert len(list((tmp_path / "grid" / "damaged").iterdir())) == 1
    assert kill.ending(tmp_path) == undisturbed


def test_all_checkpoints_damaged_is_a_fresh_start(
    sources: Sources, undisturbed: dict[str, object], tmp_path: Path
) -> None:
    train_categories(small_config(), sources, "grid", tmp_path)
    for step in ("20", "30"):
        flip(tmp_path / "grid" / "checkpoints" / step)
    train_categories(small_config(), sources, "grid", tmp_path)
    assert kill.ending(tmp_path) == undisturbed


def test_a_checkpoint_of_another_version_is_left_alone(sources: Sources, tmp_path: Path) -> None:
    train_categories(small_config(), sources, "grid", tmp_path)
    path = tmp_path / "grid" / "checkpoints" / "30" / "provenance" / "metadata"
    about = json.loads(path.read_text())
    for changed in ({k: v for k, v in about.items() if k != "sha256"}, {**about, "colour": "red"}):
        path.write_text(json.dumps(changed))
        with pytest.raises(InputError, match="another version of pfm_jax; use another --workdir"):
            train_categories(small_config(), sources, "grid", tmp_path)
    assert path.is_file()


def command(tmp_path: Path, workdir: str = "run") -> list[str]:
    return kill.command(tmp_path, tmp_path / workdir, False)


def wait_for(path: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} does not come"
        time.sleep(0.02)


def test_sigterm_saves_and_the_run_goes_on_where_it_was(tmp_path: Path) -> None:
    make_sources(tmp_path)
    environment = {**os.environ, "PFM_JAX_CACHE": str(tmp_path / "cache")}
    assert kill.start(command(tmp_path, "undisturbed"), environment).wait() == 0
    process = kill.start(command(tmp_path), environment)
    wait_for(tmp_path / "run" / "grid" / "checkpoints" / "50")
    process.send_signal(signal.SIGTERM)
    start = time.monotonic()
    assert process.wait() == 0
    assert time.monotonic() - start < 10
    steps = sorted(int(p.name) for p in (tmp_path / "run" / "grid" / "checkpoints").iterdir())
    assert 50 <= steps[-1] < 400
    assert not (tmp_path / "run" / "grid" / "metrics.json").exists()
    assert json.loads((tmp_path / "run" / "grid" / "run.json").read_text())["status"] == "running"
    done = subprocess.run(
        command(tmp_path), cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert f"resumed at step {steps[-1]}" in (tmp_path / "run" / "log.txt").read_text()
    assert kill.ending(tmp_path / "run") == kill.ending(tmp_path / "undisturbed")
    about = json.loads((tmp_path / "run" / "grid" / "run.json").read_text())
    assert about["status"] == "finished" and about["seconds"]["train"] > 0
    assert {"git", "python", "provenance"} <= set(about)
    known = set(about["provenance"])
    assert {"config", "versions", "device", "data", "weights"} <= known


def test_a_second_launch_is_refused(sources: Sources, tmp_path: Path) -> None:
    with files.locked(tmp_path / "grid"):
        with pytest.raises(InputError, match="grid: in use by another process"):
            train_categories(small_config(), sources, "grid", tmp_path)
        with pytest.raises(InputError, match="in use"), files.locked(tmp_path / "grid"):
            pass
    train_categories(small_config(steps=2), sources, "grid", tmp_path)


FULL = """
import resource, sys
from pathlib import Path
from tests.synthetic import small_config
from pfm_jax.types import Sources
from pfm_jax.runs.train import train_categories
from pfm_jax.types import InputError
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[4]),) * 2)
import shutil
import signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # as a full disk: writing fails
try:
    train_categories(small_config(), Sources(sys.argv[1], sys.argv[2]), "grid", Path(sys.argv[3]))
except (InputError, OSError, ValueError) as error:
    print("ended:", type(error).__name__, error)
"""


def test_no_room_loses_nothing(
    sources: Sources, undisturbed: dict[str, object], tmp_path: Path
) -> None:
    """Files can't grow: the run ends with an error; with room it ends as if nothing had been."""
    places = [str(sources.data_dir), str(sources.weights_dir), str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", FULL, *places, "60000"], cwd=ROOT, capture_output=True, text=True
    )
    assert "ended:" in done.stdout, done.stdout + done.stderr
    assert not (tmp_path / "grid" / "metrics.json").exists()
    train_categories(small_config(), sources, "grid", tmp_path)
    assert kill.ending(tmp_path) == undisturbed


def test_a_full_disk_is_one_sentence(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said before Orbax begins to write; what it raises otherwise is said as shortly."""
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(InputError, match=r"grid: checkpoints can't be written \(\d+ MB are needed"):
        train_categories(small_config(), sources, "grid", tmp_path)
    monkeypatch.undo()

    def full(*_: object, **__: object) -> None:
        raise ValueError("RESOURCE_EXHAUSTED: Error\nwriting: No space left on device [code='28']")

    monkeypatch.setattr(ocp.CheckpointManager, "save", full)
    with pytest.raises(InputError, match=r"written \(No space left on device\); complete ones"):
        train_categories(small_config(), sources, "grid", tmp_path)


def test_what_is_not_finite_is_named(
    sources: Sources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=r"grid: the loss at conv\d_x is not finite in step \d+"):
        train_categories(
            small_config(learning_rate=dict.fromkeys(("conv2_x", "conv3_x", "conv4_x"), 1e30)),
            sources,
            "grid",
            tmp_path / "loss",
        )
    assert not list((tmp_path / "loss" / "grid" / "checkpoints").iterdir())

    def nan_in_the_third(pair, levels, neighbourhood):
        found = at_levels(pair, levels, neighbourhood)
        pair = found["conv3_x"]
        poisoned = pair.target.at[2, 1, 1, 5].set(jnp.nan)
        return {**found, "conv3_x": pair._replace(target=poisoned)}

    at_levels = features.at_levels
    monkeypatch.setattr(features, "at_levels", nan_in_the_third)
    cache._store_on_device.clear_cache()
    with pytest.raises(
        InputError, match=r"002\.png: the features of the target network at conv3_x"
    ):
        train_categories(small_config(), sources, "grid", tmp_path / "features")
    cache._store_on_device.clear_cache()


def test_git_state() -> None:
    found = record.git_state()
    head = subprocess.run(["git", "-C", ROOT, "rev-parse", "HEAD"], capture_output=True, text=True)
    assert (found is None) == (head.returncode != 0)
    if found:
        assert found["commit"] == head.stdout.strip()
