"""Kills a run, or a sweep, again and again at random moments, and compares how it ends.

    python -m tests.kill --kills=30            SIGKILL to a training run
    python -m tests.kill --kills=30 --sweep    to a sweep of two cases and two seeds

Made-up images and weights, a minute of training in all but for the starts. Compilations are kept on
disk: most of a start.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.synthetic import make_sources

ROOT = Path(__file__).parents[1]
COMPARED = ("scores.csv", "normal_scores.csv", "heatmaps.png")


def command(place: Path, workdir: Path, sweep: bool) -> list[str]:
    """Command line of a run, or a sweep, on the images in `place`."""
    recipe = ["--config=tests/small_sweep.py", "--cases=deep,whole", "--seeds=0,1"]
    if not sweep:
        recipe = ["--config=tests/small_run.py"]
    module = "launch.sweep" if sweep else "launch.train"
    which = "--categories=grid" if sweep else "--category=grid"
    folders = [f"--data_dir={place / 'data'}", f"--weights_dir={place / 'weights'}"]
    return [sys.executable, "-m", module, *recipe, which, *folders, f"--workdir={workdir}"]


def ending(workdir: Path) -> dict[str, object]:
    """All that a finished run or sweep leaves, but for times; parameters by their checksum."""
    found: dict[str, object] = {}
    for metrics in sorted(workdir.rglob("metrics.json")):
        folder = metrics.parent
        name = folder.relative_to(workdir).as_posix()
        measured = json.loads(metrics.read_text())
        measured.pop("seconds")
        found[f"{name}/metrics"] = measured
        for file in COMPARED:
            found[f"{name}/{file}"] = (folder / file).read_bytes()
        last = max((folder / "checkpoints").iterdir(), key=lambda step: int(step.name))
        about = json.loads((last / "provenance" / "metadata").read_text())
        found[f"{name}/parameters"] = (last.name, about["sha256"])
    return found


def start(argv: list[str], environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Without its output."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    return subprocess.Popen(argv, cwd=ROOT, env=environment, **quiet)


def killed(place: Path, kills: int, sweep: bool, rng: random.Random) -> tuple[int, int]:
    """How often it was killed, and how many of the endings were those of an undisturbed run."""
    compiled = os.environ.get("JAX_COMPILATION_CACHE_DIR", str(place / "compiled"))
    environment = {
        **os.environ,
        "PFM_JAX_CACHE": str(place / "cache"),
        "JAX_COMPILATION_CACHE_DIR": compiled,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
    }
    for _ in range(2):  # the second time with compilations from disk
        shutil.rmtree(place / "undisturbed", ignore_errors=True)
        begin = time.perf_counter()
        assert start(command(place, place / "undisturbed", sweep), environment).wait() == 0
        seconds = time.perf_counter() - begin
    expected = ending(place / "undisturbed")
    assert expected
    done = equal = endings = 0
    while done < kills:
        argv, workdir = command(place, place / f"run_{endings}", sweep), place / f"run_{endings}"
        before = done
        while True:
            process, begin = start(argv, environment), time.perf_counter()
            try:
                process.wait(rng.uniform(0, 0.9 * seconds) if done < kills else None)
                if before == done:  # it was not a rest: the machine is less busy now
                    seconds = min(seconds, time.perf_counter() - begin)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.wait()
                done += 1
                print(f"kill {done}", flush=True)
                continue
            assert process.returncode == 0
            break
        endings += 1
        equal += ending(workdir) == expected
        print(f"ending {endings}: {'equal' if equal == endings else 'DIFFERENT'}", flush=True)
    assert equal == endings
    return done, equal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--sweep", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_sources(Path(folder))
        rng = random.Random(options.seed)
        done, equal = killed(Path(folder), options.kills, options.sweep, rng)
    print(f"{done} kills, {equal} endings, all of them equal to the undisturbed one")


if __name__ == "__main__":
    main()
