"""The memory of methods that are trained on whole images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from pfm_jax.baselines.features import Memory
from pfm_jax.model.problem import Objective
from pfm_jax.system import arrays, devices


def kept(params: Any) -> Memory:
    """Trained parameters as arrays by name."""
    return devices.replicate({k: jnp.asarray(v) for k, v in arrays.named(params).items()})


def restored(objective: Objective, memory: Memory) -> Any:
    """Inverse of `kept`."""
    held: Any = memory
    like = jax.eval_shape(objective.init, jax.random.key(0))
    return arrays.filled(like, held, Path("the detector"))
