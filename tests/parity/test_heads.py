"""The heads, their loss, gradients and optimiser against torch (tests/parity/goldens/heads.npz)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.typing import DTypeLike

from pfm_jax import training as train
from pfm_jax.config import Config, MappingConfig, TrainConfig
from pfm_jax.model import heads as mapping
from pfm_jax.model.folded import anomaly_maps, fold, predict
from pfm_jax.model.heads import Head, Heads
from pfm_jax.model.problem import make_extent, mapping_problem
from pfm_jax.types import Batch, Pair
from tests.parity.goldens.seeded import SEED, seeded_images, seeded_tensor

LEVEL = "conv3_x"
GOLDEN = np.load(Path(__file__).parent / "goldens" / "heads.npz")
SOURCE, TARGET, LATENT, GRID = 16, 24, 10, (4, 5, 7)
MAPPING = MappingConfig(latent={LEVEL: LATENT})
TRAIN = TrainConfig(
    sampling="images",
    learning_rate={LEVEL: 3e-4},
    schedule="constant",
    warmup=0.0,
    beta2=0.999,
    weight_decay=1e-5,
    precision="float32",
)
PROBLEM = mapping_problem(Config(mapping=MAPPING, train=TRAIN))
EXTENT = make_extent(PROBLEM, num_images=1)
CHANNELS = {LEVEL: Pair(SOURCE, TARGET)}
LEAVES = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}

step = jax.jit(train.step, static_argnames="problem")


def flatten(head: Head) -> dict[tuple[str, ...], jax.Array]:
    """Leaves that torch has, by paths such as `("encoders", "forward", "0", "dense", "kernel")`."""
    return {
        tuple(jax.tree_util.keystr(path, simple=True, separator="/").split("/")): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(replace(head, expected={}))
    }


def torch_name(path: tuple[str, ...]) -> str:
    """Ours -> the name in the golden file."""
    if path[0] == "shared":
        return f"shared.{LEAVES.get(path[1], path[1])}"
    stage, direction, index, kind, leaf = path
    number = int(index) + {"encoders": 1, "decoders": 4}[stage]
    module = {"dense": "conv", "norm": "bn"}[kind]
    return f"{direction}.layer{number}.{module}.{LEAVES.get(leaf, leaf)}"


def from_torch(values: np.ndarray) -> np.ndarray:
    return values[:, :, 0, 0].T if values.ndim == 4 else values


def seeded_like(head: Head) -> Head:
    """Our pytree with the values that torch began with."""
    values = []
    for path, leaf in flatten(head).items():
        shape = (*leaf.shape[::-1], 1, 1) if leaf.ndim == 2 else leaf.shape
        values.append(jnp.asarray(from_torch(seeded_tensor(torch_name(path), shape))))
    structure = jax.tree.structure(replace(head, expected={}))
    return replace(jax.tree.unflatten(structure, values), expected=head.expected)


def before_batch_norm(path: tuple[str, ...]) -> bool:
    """Whether this is a bias that BatchNorm takes out again: its gradient is rounding error."""
    if path[-1] != "bias" or path[-2] == "norm":
        return False
    return path[0] == "shared" or (path[0], path[2]) != ("decoders", "2")


def unit_rows(channels: int, seed: int) -> jax.Array:
    rows = seeded_images((*GRID, channels), seed).reshape(-1, channels)
    return jnp.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def batch_of(seed: int) -> Batch:
    features = Pair(unit_rows(SOURCE, seed), unit_rows(TARGET, seed))
    return Batch({LEVEL: features}, {LEVEL: jnp.ones(np.prod(GRID))})


@pytest.fixture
def state() -> train.TrainState:
    fresh = train.init_state(0, CHANNELS, PROBLEM, EXTENT)
    return replace(fresh, heads={LEVEL: seeded_like(fresh.heads[LEVEL])})


def assert_close(ours: jax.Array, golden: np.ndarray, tolerance: float = 1e-5) -> None:
    """To `tolerance` of the largest value."""
    golden = from_torch(golden)
    np.testing.assert_allclose(ours, golden, rtol=0, atol=tolerance * max(abs(golden).max(), 1e-12))


def predictions(state: train.TrainState, batch: Batch) -> dict[str, jax.Array]:
    inputs, _ = mapping.inputs_and_targets(batch.features[LEVEL], MAPPING.directions)
    return mapping.apply(state.heads[LEVEL], inputs, batch.mask[LEVEL])[0]


def loss_and_gradient(
    state: train.TrainState, config: MappingConfig, dtype: DTypeLike = jnp.float32
) -> tuple[jax.Array, Heads]:
    batch = batch_of(SEED)
    learned, running = mapping.split(state.heads)

    def loss(learned: Heads) -> jax.Array:
        return mapping.loss(mapping.merge(learned, running), batch, config, dtype)[0]

    return jax.jit(jax.value_and_grad(loss))(learned)


def test_learned_and_running_are_all(state: train.TrainState) -> None:
    learned, running = mapping.split(state.heads)
    statistics = {path for path in flatten(state.heads[LEVEL]) if path[-1] in ("mean", "var")}
    assert len(statistics) == 2 * 2 * 4, "a mean and a variance, in each direction's four layers"
    assert set(flatten(running[LEVEL])) == statistics
    assert set(flatten(learned[LEVEL])) == set(flatten(state.heads[LEVEL])) - statistics
    jax.tree.map(np.testing.assert_array_equal, mapping.merge(learned, running), state.heads)


def test_outputs(state: train.TrainState) -> None:
    for direction, rows in predictions(state, batch_of(SEED)).items():
        assert_close(rows, GOLDEN[f"train/{direction}"].reshape(rows.shape))


@pytest.mark.parametrize("case", ["normalized", "unnormalized"])
def test_loss_and_every_gradient(state: train.TrainState, case: str) -> None:
    config = MappingConfig(latent={LEVEL: LATENT}, normalize_prediction=case == "normalized")
    loss, grads = loss_and_gradient(state, config)
    assert_close(loss, GOLDEN[f"{case}/loss"])
    flat = flatten(grads[LEVEL])
    golden = {key for key in GOLDEN.files if key.startswith(f"{case}/gradients/")}
    assert {f"{case}/gradients/{torch_name(path)}" for path in flat} == golden
    largest = max(abs(GOLDEN[key]).max() for key in golden)
    for path, ours in flat.items():
        theirs = GOLDEN[f"{case}/gradients/{torch_name(path)}"]
        if before_batch_norm(path):
            assert abs(ours).max() < 1e-5 * largest
        else:
            assert_close(ours, theirs)


def test_five_steps_of_adam(state: train.TrainState) -> None:
    for index in range(5):
        state, losses = step(state, batch_of(SEED + index), PROBLEM)
        assert_close(losses[LEVEL], GOLDEN["trained/losses"][index])
    for path, ours in flatten(state.heads[LEVEL]).items():
        name = torch_name(path)
        if before_batch_norm(path):
            # Adam makes steps of full length of the rounding that is the gradient here.
            np.testing.assert_allclose(ours, GOLDEN[f"trained/{name}"], rtol=0, atol=5 * 2 * 3e-4)
        else:
            assert_close(ours, GOLDEN[f"trained/{name}"], 1e-4)
    features = batch_of(SEED + 5).features
    maps = anomaly_maps(fold(state.heads), features, MAPPING)
    assert_close(maps[LEVEL].reshape(GRID), GOLDEN["trained/anomaly_map"], 1e-4)


def test_anomaly_map_of_untrained_heads(state: train.TrainState) -> None:
    grid = jax.tree.map(lambda rows: rows.reshape(*GRID, -1), batch_of(SEED + 5).features)
    maps = anomaly_maps(fold(state.heads), grid, MAPPING)
    assert_close(maps[LEVEL], GOLDEN["initial/anomaly_map"])


@pytest.mark.parametrize("precision, tolerance", [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_folded_heads_predict_what_the_layers_do(
    state: train.TrainState, precision: str, tolerance: float
) -> None:
    batch = batch_of(SEED)
    state, _ = step(state, batch, PROBLEM)
    inputs, _ = mapping.inputs_and_targets(batch.features[LEVEL], MAPPING.directions)
    expected, _ = mapping.apply(state.heads[LEVEL], inputs)
    found = fold(state.heads)[LEVEL]
    assert set(found) == set(expected)
    for direction, head in found.items():
        assert len(head.layers) == 5, "the SMU is part of the layer after it"
        ours, _ = predict(head, inputs[direction], jnp.dtype(precision))
        assert_close(ours, np.asarray(expected[direction]), tolerance)


def test_rounded_training_follows_float32(state: train.TrainState) -> None:
    """Operands rounded to 8 bits: losses and gradients to a few times their rounding, 2^-9."""
    grads = {
        dtype: loss_and_gradient(state, MAPPING, dtype) for dtype in (jnp.float32, jnp.bfloat16)
    }
    assert_close(grads[jnp.bfloat16][0], np.asarray(grads[jnp.float32][0]), 1e-2)
    exact, rounded = (
        np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(grads[dtype][1])])
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    assert 0 < np.linalg.norm(rounded - exact) < 0.15 * np.linalg.norm(exact)


def test_padding_changes_nothing(state: train.TrainState) -> None:
    batch = batch_of(SEED)
    padded = Batch(
        jax.tree.map(lambda rows: jnp.concatenate([rows, 9 * rows[:30]]), batch.features),
        {LEVEL: jnp.concatenate([batch.mask[LEVEL], jnp.zeros(30)])},
    )
    one, other = step(state, batch, PROBLEM), step(state, padded, PROBLEM)
    assert_close(other[1][LEVEL], np.asarray(one[1][LEVEL]))
    statistics, others = (mapping.split(after.heads)[1] for after, _ in (one, other))
    assert len(jax.tree.leaves(statistics)) == 16 + 4, "and what is expected"
    jax.tree.map(lambda a, b: assert_close(b, np.asarray(a), 1e-4), statistics, others)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_pfm_is_one_direction_alone(direction: str) -> None:
    config = MappingConfig(latent={LEVEL: LATENT}, directions=(direction,))
    features = batch_of(SEED).features
    heads = mapping.init(jax.random.key(0), CHANNELS, config)
    assert set(heads[LEVEL].encoders) == set(heads[LEVEL].decoders) == {direction}
    maps = anomaly_maps(fold(heads), features, config)[LEVEL]
    inputs, targets = mapping.inputs_and_targets(features[LEVEL], (direction,))
    rows, _ = mapping.apply(heads[LEVEL], inputs)
    unit = rows[direction] / jnp.linalg.norm(rows[direction], axis=-1, keepdims=True)
    # Unit vectors at a squared distance of 2 - 2 cos.
    assert_close(maps, np.asarray(2 - 2 * jnp.sum(unit * targets[direction], -1)), 1e-4)
