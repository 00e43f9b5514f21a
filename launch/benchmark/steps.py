"""Time of a training step, of one run or of several together, and of compiling it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from pfm_jax.config import Config
from pfm_jax.model import features
from pfm_jax.system import devices
from pfm_jax.training import loop
from pfm_jax.training.groups import stack

from . import untrained
from .timing import compiled

RUNS = (1, 4, 15, 45)


def measure(config: Config, weights_dir: str, cache: Path, runs: int = 1) -> dict[str, float]:
    """Seconds of a step of runs that train together, on cached features of 8 images.

    And of compiling the training program: `compile_seconds`, and `cached_seconds` for a process
    that finds it in the persistent cache, for which `cache` is an empty folder.
    """
    networks, state, problem = untrained.start(config, weights_dir, 8)
    images = np.random.default_rng(0).integers(0, 256, (8, 256, 256, 3), np.uint8)
    found = features.extract(networks, images, config.levels)
    rows = jax.tree.map(lambda f: f.reshape(-1, f.shape[-1]).astype(jnp.float16), found)
    group, count = state, loop.steps_per_call(problem)
    steps = np.int32(count)
    if runs > 1:
        group = stack([state] * devices.even_runs(runs))
    cold, cached, program = compiled(
        lambda: loop.steps_on_device.lower(group, rows, steps, problem), cache
    )
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        group, losses, _ = program(group, rows, steps)
        jax.block_until_ready(losses)
        seconds.append((time.perf_counter() - start) / count)
    step = float(np.median(seconds[1:]))
    return {"compile_seconds": cold, "cached_seconds": cached, "step_seconds": step}


def together(
    config: Config, weights_dir: str, folder: Path, runs: Sequence[int] = RUNS
) -> dict[str, dict[str, float]]:
    """Seconds to compile the training program, and per step of runs that train together.

    `runs`: how many; `folder` is for a compilation cache.
    """
    found = {}
    for number in runs:
        measured = measure(config, weights_dir, folder / str(number), number)
        found[str(number)] = {
            **measured,
            "step_seconds_per_run": measured["step_seconds"] / number,
        }
    return found
