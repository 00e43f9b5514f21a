"""Whole categories to their metrics: the command in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from launch.measure.machine import peak_kib

PAPER_EPOCHS = 200


def command(flags: list[str], workdir: Path, seeds: tuple[int, ...]) -> dict[str, Any]:
    """The whole command for some seeds, in a process of its own: seconds, memory, metrics.

    Returns:
        `seconds` from start to end, `peak_gib` of resident memory, `runs`: what `metrics.json`
        of each seed holds.
    """
    argv = [sys.executable, "-m", "launch.train", *flags, f"--workdir={workdir}"]
    argv += [f"--seeds={','.join(map(str, seeds))}"]
    start, peak = time.perf_counter(), 0
    with subprocess.Popen(argv) as process:
        while process.poll() is None:  # (rusage would count what the parent had at the fork)
            peak = max(peak, peak_kib(process.pid))
            time.sleep(0.1)
    if process.returncode:
        raise RuntimeError(f"{' '.join(argv)} failed")
    return {
        "seconds": time.perf_counter() - start,
        "peak_gib": peak / 2**20,
        "runs": [
            json.loads(next(workdir.glob(f"seed_{seed}/*/metrics.json")).read_text())
            for seed in seeds
        ],
    }


def measure(flags: list[str], workdir: Path, reference_seconds: float) -> dict[str, Any]:
    """One seed alone, and four together, one of them the same."""
    one = command(flags, workdir / "one", (0,))
    four = command(flags, workdir / "four", (0, 1, 2, 3))
    names = ("image_auroc", "pixel_auroc", "pro_auc")
    alone, together = one["runs"][0], four["runs"][0]
    steps = PAPER_EPOCHS * -(-alone["counts"]["train"] // 8)
    return {
        "seconds": one["seconds"],
        "phases": alone["seconds"],
        "peak_gib": one["peak_gib"],
        "peak_gib_4_seeds": four["peak_gib"],
        "reference_seconds": steps * reference_seconds,
        "category_speedup": steps * reference_seconds / one["seconds"],
        "seeds4_over_seed1": four["seconds"] / one["seconds"],
        "seeds4_difference": max(abs(alone[name] - together[name]) for name in names),
        "seeds": [{name: run[name] for name in names} for run in four["runs"]],
        "image_auroc_deviation": float(np.std([run["image_auroc"] for run in four["runs"]])),
    }
