"""Time of a training step, ours and the reference's."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import numpy as np
import torch

from pfm_jax.config import Config
from pfm_jax.model import features
from pfm_jax.training import loop

from . import untrained
from .reference.bridge import reference
from .timing import in_turn


def reference_step(config: Config, weights_dir: str, images: np.ndarray, repeats: int) -> float:
    """Seconds per step of the eager reference on one batch of images."""
    _, state, _ = untrained.start(config, weights_dir)
    model = reference(config, weights_dir, state.heads)
    batch = torch.from_numpy(images)
    return in_turn({"step": lambda: model.train_step(batch)}, repeats)["step"]


def our_step(config: Config, weights_dir: str, images: np.ndarray) -> dict[str, float]:
    """Seconds to compile the training program, and per step on cached features of `images`."""
    networks, state, problem = untrained.start(config, weights_dir, len(images))
    found = features.extract(networks, images, config.levels)
    rows = jax.tree.map(lambda f: f.reshape(-1, f.shape[-1]).astype(jnp.float16), found)
    start = time.perf_counter()
    steps = np.int32(loop.SCAN_STEPS)
    program = loop.steps_on_device.lower(state, rows, steps, problem).compile()
    compiled = time.perf_counter() - start
    seconds = []
    for _ in range(4):
        start = time.perf_counter()
        state, losses = program(state, rows, steps)
        jax.block_until_ready(losses)
        seconds.append((time.perf_counter() - start) / loop.SCAN_STEPS)
    return {"compile_seconds": compiled, "step_seconds": float(np.median(seconds[1:]))}
