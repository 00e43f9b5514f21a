"""Time of a training step of the reference."""

from __future__ import annotations

import numpy as np
import torch

from pfm_jax.config import Config

from .. import untrained
from ..timing import in_turn
from .bridge import place, reference


def measure(config: Config, weights_dir: str, images: np.ndarray, repeats: int) -> float:
    """Seconds per step of the eager reference on one batch of images."""
    _, state, _ = untrained.start(config, weights_dir)
    model = place(reference(config, weights_dir, state.heads))
    batch = place(torch.from_numpy(images))
    return in_turn({"step": lambda: model.train_step(batch)}, repeats)["step"]
