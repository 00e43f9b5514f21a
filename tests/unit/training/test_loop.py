"""States that the loop saves, and those that it refuses to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from itertools import chain, count, repeat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from jax import Array

from pfm_jax import training as train
from pfm_jax.backbones.networks import load_networks
from pfm_jax.model.features import feature_channels
from pfm_jax.model.heads import Heads
from pfm_jax.model.problem import make_extent, mapping_problem
from pfm_jax.runs import learning
from pfm_jax.runs.run import load_dataset
from pfm_jax.training import loop
from pfm_jax.training.step import TrainState
from pfm_jax.types import InputError, Sources
from tests.synthetic import LEVELS, make_sources, small_config


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return make_sources(tmp_path_factory.mktemp("resume"))


@pytest.mark.slow
def test_a_parameter_that_is_not_finite_is_not_saved(sources: Sources, tmp_path: Path) -> None:
    """Its momentum is not: the loss of the only step is finite still."""
    config = small_config()
    networks, _ = load_networks(config.networks, config.levels, sources.weights_dir)
    channels, problem = feature_channels(networks, config.levels), mapping_problem(config)
    images = load_dataset(config, "grid", sources).train
    rows = learning.build_cache(config, networks, images)
    extent = dataclasses.replace(make_extent(problem, len(images)), total_steps=np.int32(1))
    saved: list[int] = []

    def trained(bad: str) -> None:
        def first_moment(path: Any, leaf: Array) -> Array:
            name = jax.tree_util.keystr(path, simple=True, separator="/")
            return leaf.at[0].set(np.inf) if bad and name.endswith(bad) else leaf

        state = train.init_state(config.seed, channels, problem, extent)
        moments = jax.tree_util.tree_map_with_path(first_moment, state.opt_state)
        state = dataclasses.replace(state, opt_state=moments)
        loop.train([state], rows, problem, lambda number, *_: saved.append(number))

    with pytest.raises(InputError, match="heads/conv2_x/shared/bias is not finite after step 1"):
        trained("mu/conv2_x/shared/bias")
    assert not saved
    trained("")
    assert saved == [0]


@pytest.mark.slow
def test_expected_residuals_that_are_not_finite_are_not_saved(sources: Sources) -> None:
    """The heads themselves are finite still, after one step of far too high a rate."""
    config = small_config(learning_rate=dict.fromkeys(LEVELS, 1e9))
    networks, _ = load_networks(config.networks, config.levels, sources.weights_dir)
    images = load_dataset(config, "grid", sources).train
    cached = learning.build_cache(config, networks, images)
    state = learning.fresh_state(config, networks, len(images))
    state = dataclasses.replace(
        state, extent=dataclasses.replace(state.extent, total_steps=np.int32(1))
    )
    saved: list[int] = []

    def save(number: int, *_: object) -> None:
        saved.append(number)

    wrong = r"residuals to expect at conv\d_x are not finite: lower train.learning_rate"
    with pytest.raises(InputError, match=wrong):
        loop.train([state], cached, learning.make_problem(config), save)
    assert not saved


def test_steps_that_take_no_time_are_not_saved_between(
    sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six seconds pass between two looks at the clock: at first, then every ten steps, and after
    each save."""
    config = small_config(steps=50, checkpoint_seconds=10.0)
    networks, _ = load_networks(config.networks, config.levels, sources.weights_dir)
    images = load_dataset(config, "grid", sources).train
    rows = learning.build_cache(config, networks, images)
    clock, saved = count(0, 6), {}
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(clock)))

    def save(_: int, state: TrainState, losses: dict[str, np.ndarray]) -> None:
        saved[int(state.step)] = len(losses["conv2_x"])

    fresh = learning.fresh_state(config, networks, len(images))
    loop.train([fresh], rows, mapping_problem(config), save)
    assert saved == {20: 20, 40: 20, 50: 10}


def test_a_stop_in_the_last_call_ends_as_without_it(sources: Sources) -> None:
    """The residuals to expect are fitted before the last state is saved."""
    config = small_config()
    networks, _ = load_networks(config.networks, config.levels, sources.weights_dir)
    channels, problem = feature_channels(networks, config.levels), mapping_problem(config)
    images = load_dataset(config, "grid", sources).train
    rows = learning.build_cache(config, networks, images)

    def trained(stopping: Iterator[bool]) -> tuple[Heads, Heads]:
        saved: list[Heads] = []
        state = train.init_state(config.seed, channels, problem, make_extent(problem, len(images)))

        def save(_: int, state: TrainState, __: object) -> None:
            saved.append(jax.device_get(state.heads))

        (last,), _ = loop.train([state], rows, problem, save, lambda: next(stopping))
        return last.heads, saved[-1]

    whole = trained(repeat(False))
    stopped = trained(chain([False] * 3, repeat(True)))  # asked before, and after each call
    for heads in (whole[1], *stopped):
        jax.tree.map(np.testing.assert_array_equal, heads, whole[0])
    assert np.any(whole[0]["conv2_x"].expected["forward"].bias)
