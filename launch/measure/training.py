"""Training beside the reference: a step of each, and whole categories to their metrics."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch

from launch.measure.machine import in_turn
from pfm_jax import features, loop, pretrained, train
from pfm_jax.cache import FeatureCache
from pfm_jax.config import Config
from tests.reference.bridge import reference

PAPER_EPOCHS = 200


def reference_step(config: Config, weights_dir: str, images: np.ndarray, repeats: int) -> float:
    """Seconds of a step of the eager reference on these images, the paper's batch."""
    names = config.networks.source, config.networks.target
    networks = features.pair(*(pretrained.load(name, weights_dir) for name in names))
    shapes = features.feature_shapes(networks, images.shape[1], tuple(config.mapping.latent))
    model = reference(config, weights_dir, train.init_state(config, shapes, 1))
    batch = torch.from_numpy(images)
    return in_turn({"step": lambda: model.train_step(batch)}, repeats)["step"]


def our_step(config: Config, weights_dir: str, images: np.ndarray) -> dict[str, float]:
    """Seconds to compile the training program, and of a step of it, features of `images` cached."""
    names = config.networks.source, config.networks.target
    networks = features.pair(*(pretrained.load(name, weights_dir) for name in names))
    found = features.extract(networks, images, tuple(config.mapping.latent))
    rows = jax.tree.map(lambda f: f.reshape(-1, f.shape[-1]).astype(jnp.float16), found)
    cache = FeatureCache(rows, len(images), "device")
    state = train.init_state(config, cache.rows, len(images))
    recipe = train.Recipe(config.mapping, config.train)
    start = time.perf_counter()
    group, steps = loop.stack([state]), loop.SCAN_STEPS
    program = loop.steps_on_device.lower(group, cache, recipe, steps).compile()
    compiled = time.perf_counter() - start
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        group, losses = program(group, cache)
        jax.block_until_ready(losses)
        seconds.append((time.perf_counter() - start) / steps)
    return {"compile_seconds": compiled, "step_seconds": float(np.median(seconds[1:]))}


def category(flags: list[str], workdir: Path, seeds: tuple[int, ...]) -> dict[str, Any]:
    """The whole command for some seeds, in a process of its own: seconds, memory, metrics.

    Returns:
        `seconds` from start to end, `peak_gib` of resident memory, `runs`: what `metrics.json`
        of each seed holds.
    """
    command = [sys.executable, "-m", "launch.train", *flags, f"--workdir={workdir}"]
    command += [f"--seeds={','.join(map(str, seeds))}"]
    start, peak = time.perf_counter(), 0
    with subprocess.Popen(command) as process:
        while process.poll() is None:  # (rusage would count what the parent had at the fork)
            peak = max(peak, _peak_kib(process.pid))
            time.sleep(0.1)
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed")
    return {
        "seconds": time.perf_counter() - start,
        "peak_gib": peak / 2**20,
        "runs": [
            json.loads(next(workdir.glob(f"seed_{seed}/*/metrics.json")).read_text())
            for seed in seeds
        ],
    }


def _peak_kib(pid: int) -> int:
    """The most memory a process has had resident, as far as the system says."""
    try:
        fields = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
    except OSError:
        return 0
    return int(fields.get("VmHWM", "0 kB").split()[0])


def categories(flags: list[str], workdir: Path, reference_seconds: float) -> dict[str, Any]:
    """One seed alone, and four together, one of them the same."""
    one = category(flags, workdir / "one", (0,))
    four = category(flags, workdir / "four", (0, 1, 2, 3))
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
