"""A training step beside the reference's."""

from __future__ import annotations

import time

import jax
import jax.numpy as jnp
import numpy as np
import torch

from launch.measure.machine import in_turn
from pfm_jax import features, loop, train
from pfm_jax.cache import FeatureCache
from pfm_jax.config import Config
from pfm_jax.group import fresh_state
from pfm_jax.run import Sources, load_networks
from tests.reference.bridge import reference


def reference_step(config: Config, weights_dir: str, images: np.ndarray, repeats: int) -> float:
    """Seconds of a step of the eager reference on these images, the paper's batch."""
    networks, _ = load_networks(config, Sources(weights_dir=weights_dir))
    model = reference(config, weights_dir, fresh_state(config, networks, 1))
    batch = torch.from_numpy(images)
    return in_turn({"step": lambda: model.train_step(batch)}, repeats)["step"]


def our_step(config: Config, weights_dir: str, images: np.ndarray) -> dict[str, float]:
    """Seconds to compile the training program, and of a step of it, features of `images` cached."""
    networks, _ = load_networks(config, Sources(weights_dir=weights_dir))
    found = features.extract(networks, images, tuple(config.mapping.latent))
    rows = jax.tree.map(lambda f: f.reshape(-1, f.shape[-1]).astype(jnp.float16), found)
    cache = FeatureCache(rows, len(images), "device")
    state, recipe = fresh_state(config, networks, len(images)), train.recipe_of(config)
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
