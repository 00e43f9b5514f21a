"""The heads, their loss, gradients and optimiser against torch (tests/goldens/heads.npz)."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from pfm_jax import layers, mapping, train
from pfm_jax.config import Config, MappingConfig, TrainConfig
from pfm_jax.types import Batch, FeaturePair
from tests.goldens.seeded import SEED, seeded_images, seeded_tensor

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
RECIPE = train.Recipe(MAPPING, TRAIN)


def torch_name(path: tuple[str, ...]) -> str:
    """Ours -> the name in the golden file."""
    if path[0] == "shared":
        return "shared." + {"kernel": "weight", "bias": "bias"}[path[1]]
    part, kind, leaf = path
    stage, direction = part.split("_")
    number = int(kind[-1]) + {"encoders": 1, "decoders": 4}[stage]
    module = {"linear": "conv", "norm": "bn"}[kind[:-2]]
    leaves = {"kernel": "weight", "scale": "weight", "mean": "running_mean", "var": "running_var"}
    return f"{direction}.layer{number}.{module}.{leaves.get(leaf, leaf)}"


def from_torch(values: np.ndarray) -> np.ndarray:
    return values[:, :, 0, 0].T if values.ndim == 4 else values


def seeded_like(tree: dict) -> dict:
    """Our pytree with the values that torch began with."""
    flat = traverse_util.flatten_dict(tree)
    for path, leaf in flat.items():
        shape = (*leaf.shape[::-1], 1, 1) if leaf.ndim == 2 else leaf.shape
        flat[path] = jnp.asarray(from_torch(seeded_tensor(torch_name(path), shape)))
    return traverse_util.unflatten_dict(flat)


def before_batch_norm(path: tuple[str, ...]) -> bool:
    """Whether this is a bias that BatchNorm takes out again: its gradient is rounding error."""
    return path[-1] == "bias" and path[-2] in ("shared", "linear_0", "linear_1")


def unit_rows(channels: int, seed: int) -> jax.Array:
    rows = seeded_images((*GRID, channels), seed).reshape(-1, channels)
    return jnp.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True))


def batch_of(seed: int) -> Batch:
    features = FeaturePair({LEVEL: unit_rows(SOURCE, seed)}, {LEVEL: unit_rows(TARGET, seed)})
    return Batch(features, {LEVEL: jnp.ones(np.prod(GRID))})


@pytest.fixture
def state() -> train.TrainState:
    config = Config(mapping=MAPPING, train=TRAIN)
    fresh = train.init_state(config, batch_of(SEED).features, num_images=1)
    params, stats = seeded_like(fresh.params[LEVEL]), seeded_like(fresh.batch_stats[LEVEL])
    return dataclasses.replace(fresh, params={LEVEL: params}, batch_stats={LEVEL: stats})


def folded(state: train.TrainState) -> mapping.FoldedHeads:
    return jax.jit(mapping.fold)(state.params, state.batch_stats)


def assert_close(ours: jax.Array, golden: np.ndarray, tolerance: float = 1e-5) -> None:
    """To `tolerance` of the largest value."""
    golden = from_torch(golden)
    np.testing.assert_allclose(ours, golden, rtol=0, atol=tolerance * max(abs(golden).max(), 1e-12))


def predictions(state: train.TrainState, batch: Batch) -> dict[str, jax.Array]:
    head = mapping.make_heads(MAPPING, batch.features)[LEVEL]
    inputs, _ = mapping.inputs_and_targets(batch.features, LEVEL, MAPPING.directions)
    variables = {"params": state.params[LEVEL], "batch_stats": state.batch_stats[LEVEL]}
    return head.apply(variables, inputs, batch.mask[LEVEL], mutable="batch_stats")[0]


def test_outputs(state: train.TrainState) -> None:
    for direction, rows in predictions(state, batch_of(SEED)).items():
        assert_close(rows, GOLDEN[f"train/{direction}"].reshape(rows.shape))


@pytest.mark.parametrize("case", ["normalized", "unnormalized"])
def test_loss_and_every_gradient(state: train.TrainState, case: str) -> None:
    config = MappingConfig(latent={LEVEL: LATENT}, normalize_prediction=case == "normalized")
    batch = batch_of(SEED)
    heads = mapping.make_heads(config, batch.features)
    gradient = jax.jit(
        jax.value_and_grad(
            lambda params: mapping.loss(heads, params, state.batch_stats, batch, config)[0]
        )
    )
    loss, grads = gradient(state.params)
    assert_close(loss, GOLDEN[f"{case}/loss"])
    flat = traverse_util.flatten_dict(grads[LEVEL])
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
    update = train.optimizer(TRAIN, 5, state.params)
    step = jax.jit(lambda s, b: train.train_step(s, b, RECIPE, update))
    for index in range(5):
        state, losses = step(state, batch_of(SEED + index))
        assert_close(losses[LEVEL], GOLDEN["trained/losses"][index])
    flat = traverse_util.flatten_dict(state.params[LEVEL])
    flat |= traverse_util.flatten_dict(state.batch_stats[LEVEL])
    for path, ours in flat.items():
        name = torch_name(path)
        if before_batch_norm(path):
            # Adam makes steps of full length of the rounding that is the gradient here.
            np.testing.assert_allclose(ours, GOLDEN[f"trained/{name}"], rtol=0, atol=5 * 2 * 3e-4)
        else:
            assert_close(ours, GOLDEN[f"trained/{name}"], 1e-4)
    features = batch_of(SEED + 5).features
    maps = mapping.anomaly_maps(folded(state), features, MAPPING)
    assert_close(maps[LEVEL].reshape(GRID), GOLDEN["trained/anomaly_map"], 1e-4)


def test_anomaly_map_of_untrained_heads(state: train.TrainState) -> None:
    grid = jax.tree.map(lambda rows: rows.reshape(*GRID, -1), batch_of(SEED + 5).features)
    maps = mapping.anomaly_maps(folded(state), grid, MAPPING)
    assert_close(maps[LEVEL], GOLDEN["initial/anomaly_map"])


@pytest.mark.parametrize("precision, tolerance", [("float32", 1e-5), ("bfloat16", 2e-2)])
def test_folded_heads_predict_what_the_layers_do(
    state: train.TrainState, precision: str, tolerance: float
) -> None:
    batch = batch_of(SEED)
    update = train.optimizer(TRAIN, 5, state.params)
    state, _ = jax.jit(lambda s, b: train.train_step(s, b, RECIPE, update))(state, batch)
    inputs, _ = mapping.inputs_and_targets(batch.features, LEVEL, MAPPING.directions)
    variables = {"params": state.params[LEVEL], "batch_stats": state.batch_stats[LEVEL]}
    expected = mapping.make_heads(MAPPING, batch.features)[LEVEL].apply(variables, inputs)
    for direction, head in folded(state).layers[LEVEL].items():
        assert len(head) == 5, "the SMU is part of the layer after it"
        ours = mapping.predict(head, inputs[direction], jnp.dtype(precision))
        assert_close(ours, np.asarray(expected[direction]), tolerance)


def test_rounded_training_follows_float32(state: train.TrainState) -> None:
    """Operands rounded to 8 bits: losses and gradients to a few times their rounding, 2^-9."""
    batch, grads = batch_of(SEED), {}
    for dtype in (jnp.float32, jnp.bfloat16):
        heads = mapping.make_heads(MAPPING, batch.features, dtype)
        grads[dtype] = jax.jit(
            jax.value_and_grad(
                lambda p, h=heads: mapping.loss(h, p, state.batch_stats, batch, MAPPING)[0]
            )
        )(state.params)
    assert_close(grads[jnp.bfloat16][0], np.asarray(grads[jnp.float32][0]), 1e-2)
    exact, rounded = (
        np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(grads[dtype][1])])
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    assert 0 < np.linalg.norm(rounded - exact) < 0.15 * np.linalg.norm(exact)


@pytest.mark.parametrize("rows", [16, 13], ids=["in tiles", "not in tiles"])
def test_rounded_product_is_the_product_of_rounded_operands(rows: int) -> None:
    x, w, g = (
        jnp.asarray(seeded_images(shape, seed))
        for seed, shape in enumerate([(rows, 5), (5, 7), (rows, 7)])
    )
    y, back = jax.vjp(layers.rounded_product, x, w)
    dx, dw = back(g)
    x, w, g = (
        np.asarray(v.astype(jnp.bfloat16).astype(jnp.float32), np.float64) for v in (x, w, g)
    )
    for ours, theirs in ((y, x @ w), (dx, g @ w.T), (dw, x.T @ g)):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)


def test_padding_changes_nothing(state: train.TrainState) -> None:
    batch = batch_of(SEED)
    padded = Batch(
        jax.tree.map(lambda rows: jnp.concatenate([rows, 9 * rows[:30]]), batch.features),
        {LEVEL: jnp.concatenate([batch.mask[LEVEL], jnp.zeros(30)])},
    )
    update = train.optimizer(TRAIN, 5, state.params)
    step = jax.jit(lambda s, b: train.train_step(s, b, RECIPE, update))
    one, other = step(state, batch), step(state, padded)
    assert_close(other[1][LEVEL], np.asarray(one[1][LEVEL]))
    jax.tree.map(
        lambda a, b: assert_close(b, np.asarray(a), 1e-4), one[0].batch_stats, other[0].batch_stats
    )


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_pfm_is_one_direction_alone(direction: str) -> None:
    config = MappingConfig(latent={LEVEL: LATENT}, directions=(direction,))
    features = batch_of(SEED).features
    heads = mapping.make_heads(config, features)
    params, stats = jax.jit(lambda key: mapping.init(heads, key))(jax.random.key(0))
    assert {name for name in params[LEVEL]} == {
        "shared",
        f"encoders_{direction}",
        f"decoders_{direction}",
    }
    maps = mapping.anomaly_maps(jax.jit(mapping.fold)(params, stats), features, config)[LEVEL]
    inputs, targets = mapping.inputs_and_targets(features, LEVEL, (direction,))
    rows = heads[LEVEL].apply({"params": params[LEVEL], "batch_stats": stats[LEVEL]}, inputs)
    unit = rows[direction] / jnp.linalg.norm(rows[direction], axis=-1, keepdims=True)
    # Unit vectors at a squared distance of 2 - 2 cos.
    assert_close(maps, np.asarray(2 - 2 * jnp.sum(unit * targets[direction], -1)), 1e-4)


def test_layer_widths_are_those_of_table_1() -> None:
    rows = FeaturePair({LEVEL: jnp.zeros((1, 128))}, {LEVEL: jnp.zeros((1, 512))})
    heads = mapping.make_heads(MappingConfig(latent={LEVEL: 400}), rows)
    params = jax.jit(lambda key: mapping.init(heads, key))(jax.random.key(0))[0][LEVEL]
    assert params["shared"]["kernel"].shape == (800, 400)
    widths = {
        name: [
            params[name][layer]["kernel"].shape
            for layer in sorted(params[name])
            if "linear" in layer
        ]
        for name in params
        if name != "shared"
    }
    assert widths == {
        "encoders_forward": [(128, 464), (464, 800)],
        "decoders_forward": [(400, 800), (800, 656), (656, 512)],
        "encoders_backward": [(512, 656), (656, 800)],
        "decoders_backward": [(400, 800), (800, 464), (464, 128)],
    }


def test_initialisation_is_torchs_uniform() -> None:
    rows = FeaturePair({LEVEL: jnp.zeros((1, 128))}, {LEVEL: jnp.zeros((1, 512))})
    heads = mapping.make_heads(MappingConfig(latent={LEVEL: 400}), rows)
    params = jax.jit(lambda key: mapping.init(heads, key))(jax.random.key(0))[0][LEVEL]
    for layer in (params["shared"], params["decoders_forward"]["linear_2"]):
        bound = layer["kernel"].shape[0] ** -0.5
        for leaf in layer.values():
            assert abs(leaf).max() <= bound
            assert abs(leaf).max() > 0.98 * bound
            assert float(jnp.std(leaf)) == pytest.approx(bound / 3**0.5, rel=0.1)
