"""Time of whole categories, by the command in its own process, and of the metrics alone."""

from __future__ import annotations

import json
import os
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pfm_jax import metrics

from ..common import cli
from .timing import in_turn, peak_kib

PAPER_EPOCHS = 200

OWN_VARIABLES = ("JAX_COMPILATION_CACHE_DIR", "XLA_PYTHON_CLIENT_PREALLOCATE")
"""Settings of this process that a command by itself would not have."""


def command(flags: list[str], workdir: Path, seeds: tuple[int, ...], cache: Path) -> dict[str, Any]:
    """Runs the training command for some seeds, with `cache` as the cache folder.

    Returns:
        `seconds` from start to end, `peak_gib` of resident memory, and `runs`, the contents of
        each seed's `metrics.json`.
    """
    argv = [*cli.command("train"), *flags, f"--workdir={workdir}"]
    argv += [f"--seeds={','.join(map(str, seeds))}"]
    start, peak = time.perf_counter(), 0
    env = {k: v for k, v in os.environ.items() if k not in OWN_VARIABLES}
    env["PFM_JAX_CACHE"] = str(cache)
    with subprocess.Popen(argv, env=env) as process:
        while process.poll() is None:  # (rusage would count the parent's memory at the fork)
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
    """Compares one seed alone with four together, and both with the reference's 200 epochs.

    Each finds an empty cache of compiled programs; `seconds_again` is with what one has compiled.
    """
    cache = workdir / "cache"
    one = command(flags, workdir / "one", (0,), cache)
    again = command(flags, workdir / "again", (0,), cache)
    four = command(flags, workdir / "four", (0, 1, 2, 3), workdir / "cache_of_four")
    names = ("image_auroc", "pixel_auroc", "pro_auc")
    alone, together = one["runs"][0], four["runs"][0]
    steps = PAPER_EPOCHS * -(-alone["counts"]["train"] // 8)
    return {
        "seconds": one["seconds"],
        "seconds_again": again["seconds"],
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


def measure_metrics(images: int = 160, size: int = 256) -> dict[str, float]:
    """Seconds of PRO and both AUROCs on `images` random maps, and on ten times as many."""
    found = {}
    for name, count in (("metrics_seconds", images), ("metrics_seconds_10x", 10 * images)):
        rng = np.random.default_rng(0)
        masks = np.zeros((count, size, size), bool)
        masks[: 3 * count // 4, size // 3 : size // 2, size // 3 : size // 2] = True
        maps = rng.random((count, size, size), np.float32) + np.float32(0.3) * masks
        seconds = in_turn({"all": partial(_all, maps, masks)}, repeats=3)
        found[name] = seconds["all"]
    return {**found, "metrics_10x_ratio": found["metrics_seconds_10x"] / found["metrics_seconds"]}


def _all(maps: np.ndarray, masks: np.ndarray) -> None:
    metrics.pro_auc(maps, masks)
    metrics.pixel_auroc(maps, masks)
    metrics.image_auroc(maps.max((1, 2)), np.asarray(masks.any((1, 2))))
