"""Training on made-up features: caches and groups give the same, a resumed run what one gives."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from pfm_jax import training as train
from pfm_jax.model import heads as mapping
from pfm_jax.sweeps.plan import replaced
from pfm_jax.training import loop
from pfm_jax.training.cache import FeatureCache
from pfm_jax.training.checkpoint import Checkpoints, Provenance
from tests.small_training import ROWS, fresh, leaves, make_cache, problem_of
from tests.synthetic import LEVELS, small_config


@pytest.mark.parametrize("sampling_", ["positions", "images"])
def test_training_fits_and_every_place_gives_the_same(
    sampling_: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "GATHER_BYTES", 40_000)  # a few steps at a time
    config = small_config(sampling=sampling_, batch_size=2, epochs=10, precision="float32")
    problem, results = problem_of(config), {}
    for place in ("device", "host"):
        (state,), losses = loop.train(fresh(problem), make_cache(place=place), problem)
        results[place] = losses
        assert int(state.step) == 30 == losses["conv2_x"].shape[1]
        for level in LEVELS:
            assert losses[level][:, -5:].mean() < 0.7 * losses[level][:, :2].mean()
    for level in LEVELS:
        np.testing.assert_allclose(results["device"][level], results["host"][level], rtol=1e-3)


def test_a_second_seed_is_another_run_and_compiles_nothing() -> None:
    cache = make_cache()
    before = loop.steps_on_device._cache_size()
    found = []
    for seed in (0, 1, 0):
        problem = problem_of(dataclasses.replace(small_config(), seed=seed))
        found.append(leaves(loop.train(fresh(problem, seed), cache, problem)[0][0]))
    assert loop.steps_on_device._cache_size() - before <= 1
    assert all((a == b).all() for a, b in zip(found[0], found[2], strict=True))
    assert any((a != b).any() for a, b in zip(found[0], found[1], strict=True))


@pytest.mark.parametrize(
    ("devices", "place", "room"),
    [(1, "device", 0), (2, "device", 0), (3, "host", 0), (3, "device", 5), (8, "device", 0)],
)
def test_a_group_is_its_runs(
    devices: int, place: str, room: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three seeds on two data sets of two sizes as one batch, padded where devices or room ask for
    more: what each would do alone.
    """
    config = small_config(precision="float32", steps=5)
    cache, problem, alone = make_cache(10, place), problem_of(config), []
    parts, states = ((0, 0, 4), (1, 4, 6), (2, 4, 6)), []
    for seed, first, count in parts:
        rows = {}
        for level, positions in ROWS.items():
            own = slice(first * positions, (first + count) * positions)
            rows[level] = jax.tree.map(lambda r, own=own: np.asarray(r)[own], cache.rows[level])
        (state,) = fresh(problem, seed, num_images=count)
        alone.append(loop.train([state], FeatureCache(rows, "host"), problem)[1])
        states += fresh(problem, seed, num_images=count, first=first)
    some = jax.devices()[:devices]
    with monkeypatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: "accelerator")
        patch.setattr(jax, "devices", lambda: some)
        loop.steps_on_device.clear_cache()
        loop.steps_on_batches.clear_cache()
        saved: list[int] = []
        last, together = loop.train(
            states, cache, problem, lambda number, *_: saved.append(number), room=room
        )
    assert len(last) == len(parts) and saved == [0, 1, 2]
    assert all(losses.shape == (len(parts), 5) for losses in together.values())
    for index, own in enumerate(alone):
        for level in LEVELS:
            np.testing.assert_allclose(together[level][index], own[level][0], rtol=1e-4)


def test_levels_are_independent_problems() -> None:
    cache, config = make_cache(), small_config()
    rates, learned = {**config.train.learning_rate, "conv4_x": 1e-4}, []
    for one in (config, replaced(config, {"train.learning_rate": rates})):
        (state,), _ = loop.train(fresh(problem_of(one)), cache, problem_of(one))
        learned.append(mapping.split(state.heads)[0])
    for level, same in (("conv2_x", True), ("conv3_x", True), ("conv4_x", False)):
        pairs = zip(*(jax.tree.leaves(heads[level]) for heads in learned), strict=True)
        assert all(np.allclose(a, b, rtol=1e-5, atol=1e-7) for a, b in pairs) == same


def test_resumed_run_is_bitwise_the_undisturbed_one(tmp_path: Path) -> None:
    cache, config = make_cache(), small_config()
    problem = problem_of(config)
    provenance = Provenance(
        config, "grid", ("grid",), "f00d", {"resnet18": "beef"}, 5, None, None, {}, "cpu"
    )
    seen: dict[int, list[np.ndarray]] = {}
    with Checkpoints(tmp_path / "run") as checkpoints:

        def save(_: int, state: train.TrainState, losses: dict[str, np.ndarray]) -> None:
            checkpoints.save(state, provenance)
            seen[int(state.step)] = [leaf.copy() for leaf in leaves(state)]

        loop.train(fresh(problem), cache, problem, save)
    assert list(seen) == [10, 20, 30]
    shutil.rmtree(tmp_path / "run" / "30")  # as if killed after step 20, whose buffers were donated
    with Checkpoints(tmp_path / "run") as checkpoints:
        assert checkpoints.provenance() == provenance
        state = checkpoints.restore(fresh(problem)[0])
        assert int(state.step) == 20
        for one, other in zip(seen[20], leaves(state), strict=True):
            np.testing.assert_array_equal(one, other)
        (resumed,), losses = loop.train([state], cache, problem)
    assert losses["conv2_x"].shape == (1, 10)
    for one, other in zip(seen[30], leaves(resumed), strict=True):
        np.testing.assert_array_equal(one, other)
