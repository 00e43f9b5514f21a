"""Positions that steps see, and rows that caches hold."""

from __future__ import annotations

import dataclasses
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pfm_jax.backbones.networks import Networks, load_networks
from pfm_jax.config import Config, NetworksConfig, TrainConfig
from pfm_jax.datasets import folder, images
from pfm_jax.model import features
from pfm_jax.model import heads as mapping
from pfm_jax.model.problem import make_problem
from pfm_jax.model.tiles import Tiles
from pfm_jax.sweeps.plan import replaced
from pfm_jax.system import devices as sharding
from pfm_jax.training import cache as cache_module
from pfm_jax.training import sampling
from pfm_jax.types import Batch, Dataset
from tests.small_training import SIZE, fresh, make_cache, problem_of
from tests.synthetic import LEVELS, make_category, make_weights, small_config


def test_a_problem_knows_the_rows_of_its_features() -> None:
    problem, cache = problem_of(small_config()), make_cache(num_images=5)
    assert problem.levels == LEVELS
    assert problem.row_counts == {level: len(pair.source) for level, pair in cache.rows.items()}
    assert hash(problem) == hash(problem_of(small_config()))
    tiled = replaced(
        small_config(),
        {"data.image_size": 2 * SIZE, "data.tile_size": SIZE, "data.tile_overlap": 0},
    )
    assert make_problem(tiled, 5).row_counts == {k: 4 * n for k, n in problem.row_counts.items()}


def test_positions_are_drawn_uniformly_and_anew() -> None:
    config = small_config(positions=dict.fromkeys(LEVELS, 4096), candidates=0)
    sizes, key = tuple((level, 4) for level in LEVELS), jax.random.key(0)
    problem = dataclasses.replace(problem_of(config, 4), positions=sizes)
    rows, masks = sampling.draw(key, jnp.int32(3), jnp.int32(0), problem)
    for level in LEVELS:
        counts = np.bincount(rows[level], minlength=16)
        assert counts.shape == (16,)
        assert ((counts - 256) ** 2 / 256).sum() < 45  # chi-squared, 15 degrees: p = 1e-4
        assert masks[level].tolist() == [1.0] * 4096
    assert (rows["conv2_x"] != rows["conv3_x"]).any()
    anew, _ = sampling.draw(key, jnp.int32(4), jnp.int32(0), problem)
    assert (anew["conv2_x"] != rows["conv2_x"]).any()


@pytest.mark.slow
def test_half_of_a_batch_is_the_worst_mapped_of_its_candidates() -> None:
    level, config = "conv4_x", small_config(positions=dict.fromkeys(LEVELS, 7), candidates=3)
    cache, problem = make_cache(num_images=20), problem_of(config, 20)
    state = fresh(problem)[0]
    rows, _ = sampling.draw(state.key, state.step, jnp.int32(0), problem)
    assert {k: v.shape for k, v in rows.items()} == dict.fromkeys(LEVELS, (4 + 3 * 7,))
    drawn = jax.tree.map(lambda x: x.astype(jnp.float32), sampling.pick(cache.rows, rows))
    masks = {k: jnp.ones(len(v)) for k, v in rows.items()}
    kept = sampling.keep_hardest(state.heads, Batch(drawn, masks), problem)
    folded = mapping.fold(state.heads)  # another way to the same distances
    distances = np.asarray(mapping.anomaly_maps(folded, drawn, problem.mapping)[level])
    worst = 4 + np.argsort(-distances[4:])[:3]
    for ours, all_drawn in zip(kept.features[level], drawn[level], strict=True):
        expected = np.asarray(all_drawn)[[0, 1, 2, 3, *worst]]
        np.testing.assert_array_equal(ours, expected)
    assert {k: v.shape for k, v in kept.mask.items()} == dict.fromkeys(LEVELS, (7,))


def test_every_image_once_an_epoch_in_a_new_order() -> None:
    config = small_config(sampling="images", batch_size=3)
    problem = problem_of(replaced(config, {"mapping.latent": {"conv4_x": 8}}), 7)
    key, epochs = jax.random.key(0), []
    for epoch in range(2):
        seen: Counter[int] = Counter()
        for step in range(3):
            number = jnp.int32(3 * epoch + step)
            rows, masks = sampling.draw(key, number, jnp.int32(0), problem)
            assert rows["conv4_x"].shape == (12,)
            seen.update(rows["conv4_x"][masks["conv4_x"] == 1].tolist())
            epochs.append(rows["conv4_x"].tolist())
        assert seen == Counter(range(28))
    assert epochs[:3] != epochs[3:]


def test_steps_of_both_schedules() -> None:
    images = Config(train=TrainConfig(sampling="images", batch_size=8, epochs=200))
    assert make_problem(images, 209).total_steps == 27 * 200
    assert make_problem(Config(train=TrainConfig(steps=7)), 209).total_steps == 7


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    names = "resnet18", "resnet18_caffe"
    place = make_weights(tmp_path_factory.mktemp("weights"), *names)
    return load_networks(NetworksConfig(*names), str(place))[0]


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
    batch = np.concatenate([b[:n] for b, n in images.batches(dataset.train, 64)])
    expected = features.extract(networks, batch, LEVELS)
    assert tuple(cache.rows) == tuple(expected) == LEVELS
    for level in LEVELS:
        for ours, theirs in zip(cache.rows[level], expected[level], strict=True):
            assert ours.dtype == np.float16
            rows = np.asarray(theirs).reshape(-1, theirs.shape[-1])
            np.testing.assert_allclose(ours, rows, atol=1e-3)
            norms = np.linalg.norm(np.asarray(ours, np.float32), axis=-1)
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
