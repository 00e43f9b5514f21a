"""What steps see, that every cache gives the same, and that a resumed run is an undisturbed one."""

from __future__ import annotations

import dataclasses
import shutil
from collections import Counter
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pfm_jax import training as train
from pfm_jax.backbones.networks import Networks, load_networks
from pfm_jax.config import Config, NetworksConfig, TrainConfig
from pfm_jax.datasets import folder, images
from pfm_jax.model import features
from pfm_jax.model import heads as mapping
from pfm_jax.model.problem import Problem, make_problem
from pfm_jax.model.tiles import Tiles
from pfm_jax.sweeps.plan import replaced
from pfm_jax.system import devices as sharding
from pfm_jax.training import cache as cache_module
from pfm_jax.training import loop, sampling
from pfm_jax.training.cache import FeatureCache
from pfm_jax.training.checkpoint import Checkpoints, Provenance
from pfm_jax.types import Batch, Dataset, Pair
from tests.synthetic import LEVELS, make_category, make_weights, small_config

CHANNELS = {"conv2_x": Pair(6, 6), "conv3_x": Pair(8, 8), "conv4_x": Pair(10, 10)}
SIZE = 32
ROWS = {"conv2_x": 64, "conv3_x": 16, "conv4_x": 4}  # of an image of that size


def make_cache(num_images: int = 5, place: str = "device") -> FeatureCache:
    rng = np.random.default_rng(0)

    def rows(level: str, channels: int) -> np.ndarray:
        values = rng.random((num_images * ROWS[level], channels))
        return (values / np.linalg.norm(values, axis=-1, keepdims=True)).astype(np.float16)

    pairs = {k: Pair(*(rows(k, channels) for channels in CHANNELS[k])) for k in LEVELS}
    if place == "device":
        pairs = jax.tree.map(jnp.asarray, pairs)
    return FeatureCache(pairs, place)


def problem_of(config: Config, num_images: int = 5) -> Problem:
    return make_problem(replaced(config, {"data.image_size": SIZE}), num_images)


def fresh(problem: Problem, *seeds: int) -> list[train.TrainState]:
    return [train.init_state(seed, CHANNELS, problem) for seed in seeds or (0,)]


def leaves(state: train.TrainState) -> list[np.ndarray]:
    return [np.asarray(leaf) for leaf in jax.tree.leaves((state.heads, state.opt_state))]


def test_a_problem_knows_the_rows_of_its_features() -> None:
    problem, cache = problem_of(small_config()), make_cache(num_images=5)
    assert problem.levels == LEVELS
    assert problem.rows == {level: len(pair.source) for level, pair in cache.rows.items()}
    assert hash(problem) == hash(problem_of(small_config()))
    tiled = replaced(
        small_config(),
        {"data.image_size": 2 * SIZE, "data.tile_size": SIZE, "data.tile_overlap": 0},
    )
    assert make_problem(tiled, 5).rows == {level: 4 * rows for level, rows in problem.rows.items()}


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


@pytest.mark.parametrize("place", ["device", "host"])
@pytest.mark.parametrize("devices", [1, 3, 8])
def test_a_group_is_its_runs(devices: int, place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three seeds on two data sets as one batch, on several devices: what each would do alone.

    (Without candidates: a batched product rounds otherwise, and the next worst may be the worst.)
    """
    config = small_config(precision="float32", steps=10, candidates=0)
    cache, problem, alone = make_cache(10, place), problem_of(config, 5), []
    for seed, dataset in ((0, 0), (1, 1), (2, 1)):
        rows = jax.tree.map(lambda r, d=dataset: np.split(np.asarray(r), 2)[d], cache.rows)
        alone.append(loop.train(fresh(problem, seed), FeatureCache(rows, "host"), problem)[1])
    states = [
        dataclasses.replace(state, dataset=jnp.int32(dataset))
        for state, dataset in zip(fresh(problem, 0, 1, 2), (0, 1, 1), strict=True)
    ]
    some = jax.devices()[:devices]
    with monkeypatch.context() as patch:
        patch.setattr(jax, "default_backend", lambda: "accelerator")
        patch.setattr(jax, "devices", lambda: some)
        loop.steps_on_device.clear_cache()
        loop.steps_on_batches.clear_cache()
        _, together = loop.train(states, cache, problem)
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
    provenance = Provenance(config, "grid", "f00d", {"resnet18": "beef"}, 5, None, None, {}, "cpu")
    seen: dict[int, list[np.ndarray]] = {}
    with Checkpoints(tmp_path / "run") as checkpoints:

        def save(_: int, states: list[train.TrainState], losses: dict[str, np.ndarray]) -> None:
            (state,) = states
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
