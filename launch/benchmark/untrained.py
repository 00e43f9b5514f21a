"""Untrained heads and detectors, as fast as trained ones."""

from __future__ import annotations

import jax

from pfm_jax.backbones.networks import Networks, load_networks
from pfm_jax.config import Config
from pfm_jax.inference.detector import Detector, Record, assemble
from pfm_jax.model import scoring
from pfm_jax.model.folded import fold
from pfm_jax.model.problem import Problem
from pfm_jax.runs import learning
from pfm_jax.training.step import TrainState


def start(
    config: Config, weights_dir: str, num_images: int = 1
) -> tuple[Networks, TrainState, Problem]:
    """Networks, initial state and problem of a recipe on `num_images` images."""
    networks, _ = load_networks(config.networks, config.levels, weights_dir)
    state = learning.fresh_state(config, networks, num_images)
    return networks, state, learning.make_problem(config)


def detector(networks: Networks, state: TrainState, config: Config) -> Detector:
    """A detector of these heads, with a memory of zeros."""
    model = scoring.untrained(networks, config)._replace(heads=jax.jit(fold)(state.heads))
    return assemble(networks, model, Record(config))
