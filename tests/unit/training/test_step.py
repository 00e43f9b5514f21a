"""Positions that steps see, and rows that caches hold."""

from __future__ import annotations

import dataclasses
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from pfm_jax.backbones.networks import Networks, load_networks
from pfm_jax.config import Config, NetworksConfig, TrainConfig
from pfm_jax.datasets import folder, images
from pfm_jax.model import features
from pfm_jax.model.problem import make_extent, mapping_problem
from pfm_jax.model.tiles import Tiles
from pfm_jax.sweeps.plan import replaced
from pfm_jax.system import devices as sharding
from pfm_jax.training import cache as cache_module
from pfm_jax.training import sampling
from pfm_jax.training.step import rate
from pfm_jax.types import Dataset
from tests.small_training import SIZE, make_cache, problem_of
from tests.synthetic import LEVELS, make_category, make_weights, small_config


def test_a_problem_knows_its_positions_and_an_extent_its_tiles() -> None:
    problem, cache = problem_of(small_config()), make_cache(num_images=5)
    assert problem.levels == LEVELS
    assert sampling.cached_tiles(cache.rows, problem) == 5
    assert dict(problem.positions) == {k: len(pair.source) // 5 for k, pair in cache.rows.items()}
    assert hash(problem) == hash(problem_of(small_config()))
    tiled = replaced(
        small_config(),
        {"data.image_size": 2 * SIZE, "data.tile_size": SIZE, "data.tile_overlap": 0},
    )
    assert mapping_problem(tiled).positions == problem.positions
    extent = make_extent(mapping_problem(tiled), 5, first_image=2)
    assert (int(extent.first_tile), int(extent.num_tiles)) == (8, 20)


def test_positions_are_drawn_uniformly_and_anew() -> None:
    config = small_config(positions=dict.fromkeys(LEVELS, 4096))
    sizes, key = tuple((level, 4) for level in LEVELS), jax.random.key(0)
    problem = dataclasses.replace(problem_of(config), positions=sizes)
    extent = make_extent(problem, 4)
    rows, masks = sampling.draw(key, jnp.int32(3), extent, problem, 4)
    for level in LEVELS:
        counts = np.bincount(rows[level], minlength=16)
        assert counts.shape == (16,)
        assert ((counts - 256) ** 2 / 256).sum() < 45  # chi-squared, 15 degrees: p = 1e-4
        assert masks[level].tolist() == [1.0] * 4096
    assert (rows["conv2_x"] != rows["conv3_x"]).any()
    anew, _ = sampling.draw(key, jnp.int32(4), extent, problem, 4)
    assert (anew["conv2_x"] != rows["conv2_x"]).any()


def test_every_image_once_an_epoch_in_a_new_order() -> None:
    config = small_config(sampling="images", batch_size=3)
    problem = problem_of(replaced(config, {"mapping.latent": {"conv4_x": 8}}))
    key, epochs, extent = jax.random.key(0), [], make_extent(problem, 7)
    for epoch in range(2):
        seen: Counter[int] = Counter()
        for batch in range(3):
            number = jnp.int32(3 * epoch + batch)
            rows, masks = sampling.draw(key, number, extent, problem, 7)
            assert rows["conv4_x"].shape == (12,)
            seen.update(rows["conv4_x"][masks["conv4_x"] == 1].tolist())
            epochs.append(rows["conv4_x"].tolist())
        assert seen == Counter(range(28))
    assert epochs[:3] != epochs[3:]


@pytest.mark.parametrize("how", ["positions", "images"])
def test_a_draw_depends_neither_on_the_room_of_the_cache_nor_on_other_data_sets(how: str) -> None:
    config = small_config(sampling=how, batch_size=3)
    problem, key, draws = problem_of(config), jax.random.key(0), []
    for first, room in ((0, 7), (0, 16), (5, 12)):
        extent = make_extent(problem, 7, first)
        rows, _ = sampling.draw(key, jnp.int32(4), extent, problem, room)
        draws.append({k: np.asarray(rows[k]) - first * n for k, n in problem.positions})
    for level, positions in problem.positions:
        assert draws[0][level].min() >= 0
        assert draws[0][level].max() < 7 * positions
        for other in draws[1:]:
            np.testing.assert_array_equal(other[level], draws[0][level])


def test_steps_of_both_schedules() -> None:
    images = Config(train=TrainConfig(sampling="images", batch_size=8, epochs=200))
    assert make_extent(mapping_problem(images), 209).total_steps == 27 * 200
    positions = Config(train=TrainConfig(steps=7))
    assert make_extent(mapping_problem(positions), 209).total_steps == 7


@pytest.mark.parametrize("schedule", ["constant", "linear", "cosine"])
def test_rates_are_those_of_optax(schedule: str) -> None:
    config, total = TrainConfig(schedule=schedule, warmup=0.2), 50
    falling = {
        "constant": optax.constant_schedule(1.0),
        "cosine": optax.cosine_decay_schedule(1.0, 40),
        "linear": optax.linear_schedule(1.0, 0, 40),
    }[schedule]
    expected = optax.join_schedules([optax.linear_schedule(0, 1.0, 10), falling], [10])
    for at in range(total + 1):
        ours = rate(jnp.int32(at), jnp.int32(total), config)
        np.testing.assert_allclose(ours, expected(at), atol=1e-6)


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    names = "resnet18", "resnet18_caffe"
    place = make_weights(tmp_path_factory.mktemp("weights"), *names)
    return load_networks(NetworksConfig(*names), LEVELS, str(place))[0]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    root = tmp_path_factory.mktemp("data")
    make_category(root / "grid", good=11)
    return folder.load(root, "grid")


@pytest.mark.parametrize("place", ["device", "host", "disk"])
def test_caches_hold_the_features_of_every_image(
    place: str, networks: Networks, dataset: Dataset
) -> None:
    cache = cache_module.build_cache(networks, dataset.train, Tiles(64, 64, 0), LEVELS, place)
    assert cache.place == place
    batch = np.concatenate([b[:n] for b, n in images.batches(dataset.train, 64, 8)])
    expected = features.extract(networks, batch, LEVELS)
    assert tuple(cache.rows) == tuple(expected) == LEVELS
    for level in LEVELS:
        for ours, theirs in zip(cache.rows[level], expected[level], strict=True):
            assert ours.dtype == np.float16
            rows = np.asarray(theirs).reshape(-1, theirs.shape[-1])
            real = np.asarray(ours, np.float32)[: len(rows)]
            np.testing.assert_allclose(real, rows, atol=1e-3)
            norms = np.linalg.norm(real, axis=-1)
            np.testing.assert_allclose(norms, 1, atol=2e-3)


def test_place_follows_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharding, "free_on_host", lambda: 1000)
    device = jax.devices()[0].memory_stats() is not None
    if not device:
        assert cache_module.choose_place(400) == "device"
        assert cache_module.choose_place(600) == "disk"


def test_zero_vectors_stay_zero_and_have_finite_gradients() -> None:
    gradient = jax.grad(lambda x: features.l2_normalize(x).sum())(jnp.zeros((2, 3)))
    assert jnp.isfinite(gradient).all()
    assert (features.l2_normalize(jnp.zeros((2, 3))) == 0).all()
