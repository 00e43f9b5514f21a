"""States that the loop refuses to save."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pfm_jax import training as train
from pfm_jax.backbones.networks import load_networks
from pfm_jax.model.features import feature_channels
from pfm_jax.model.problem import make_extent, make_problem
from pfm_jax.training import loop
from pfm_jax.types import InputError, Sources
from tests.synthetic import make_sources, small_config


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return make_sources(tmp_path_factory.mktemp("resume"))


@pytest.mark.slow
def test_a_parameter_that_is_not_finite_is_not_saved(sources: Sources, tmp_path: Path) -> None:
    config = small_config()
    networks, _ = load_networks(config.networks, config.levels, sources.weights_dir)
    channels, problem = feature_channels(networks, config.levels), make_problem(config)
    state = train.init_state(config.seed, channels, problem, make_extent(problem, 6))
    head = state.heads["conv2_x"]
    shared = dataclasses.replace(head.shared, bias=head.shared.bias.at[0].set(np.inf))
    bad = {**state.heads, "conv2_x": dataclasses.replace(head, shared=shared)}
    with pytest.raises(InputError, match="heads/conv2_x/shared/bias is not finite after step 0"):
        loop._check_finite(dataclasses.replace(state, heads=bad))
    loop._check_finite(state)
