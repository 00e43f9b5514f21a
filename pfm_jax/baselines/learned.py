"""Methods that are trained on whole images: problem, cache and what is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from pfm_jax.baselines.features import Memory, collected
from pfm_jax.config import Config
from pfm_jax.methods import IMAGES
from pfm_jax.model import tiles
from pfm_jax.model.problem import Objective, Problem
from pfm_jax.system import arrays, devices
from pfm_jax.training import cache
from pfm_jax.training.cache import FeatureCache
from pfm_jax.types import Example, Pair


def make_problem(config: Config, objective: Objective) -> Problem:
    """The problem of training on whole images, which are its one level, `methods.IMAGES`."""
    cut = tiles.training_tiles(config.data)
    return Problem(config.mapping, config.train, cut, ((IMAGES, 1),), objective)


def build_cache(
    targets: Callable[[Any], Array], examples: Sequence[Example], size: int, *, pixels: bool
) -> FeatureCache:
    """Pixels of every image, uint8 `[N, size * size * 3]`, and what is to be learnt, `[N, T]`.

    Without `pixels`, `[N, 0]` in their place.

    `targets`, compiled, takes uint8 images `[B, size, size, 3]`. Raises InputError as `collected`.
    """

    def of_batch(images: Any) -> dict[str, Array]:
        source = jnp.asarray(images).reshape(images.shape[0], -1)
        return {"source": source if pixels else source[:, :0], "target": targets(images)}

    found = collected(of_batch, examples, size, cache.capacity(len(examples)))
    rows: Any = {IMAGES: Pair(found["source"], found["target"])}
    if cache.choose_place(devices.tree_bytes(rows)) == "device":
        return FeatureCache(devices.replicate(rows), "device")
    return FeatureCache(rows, "host")


def kept(params: Any) -> Memory:
    """Trained parameters as arrays by name."""
    return devices.replicate({k: jnp.asarray(v) for k, v in arrays.named(params).items()})


def restored(objective: Objective, memory: Memory) -> Any:
    """Inverse of `kept`."""
    held: Any = memory
    like = jax.eval_shape(objective.init, jax.random.key(0))
    return arrays.filled(like, held, Path("the detector"))
