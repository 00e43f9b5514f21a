"""The whole method against the PyTorch reference, where torch is installed (extra `bench`)."""

from __future__ import annotations

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pfm_jax import training as train
from pfm_jax.backbones.networks import Networks, load_networks
from pfm_jax.config import (
    PAPER_SCORING,
    Config,
    DataConfig,
    MappingConfig,
    NetworksConfig,
    TrainConfig,
)
from pfm_jax.model import features, scoring
from pfm_jax.model import heads as mapping
from pfm_jax.model.folded import fold
from pfm_jax.model.problem import make_extent, mapping_problem
from pfm_jax.model.scoring import MappingModel
from pfm_jax.types import Batch, ScoreMaps
from tests.parity.goldens.seeded import seeded_bytes
from tests.synthetic import LEVELS, make_weights

torch = pytest.importorskip("torch", reason="torch is in the extra `bench`")
NAMES = ("resnet18", "resnet50_caffe")
PLAIN = dataclasses.replace(PAPER_SCORING, precision="float32")
CONFIG = Config(
    data=DataConfig(image_size=64),
    networks=NetworksConfig(*NAMES),
    mapping=MappingConfig(latent=dict.fromkeys(LEVELS, 20)),
    train=TrainConfig(
        sampling="images",
        learning_rate=dict.fromkeys(LEVELS, 3e-4),
        schedule="constant",
        warmup=0.0,
        beta2=0.999,
        weight_decay=1e-5,
        precision="float32",
    ),
)
IMAGES = seeded_bytes((2, 64, 64, 3))
PROBLEM = mapping_problem(CONFIG)
EXTENT = make_extent(PROBLEM, len(IMAGES))

score = jax.jit(scoring.score, static_argnames="spec")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_weights(tmp_path_factory.mktemp("weights"), *NAMES))


@pytest.fixture(scope="module")
def networks(weights: str) -> Networks:
    return load_networks(CONFIG.networks, LEVELS, weights)[0]


def first_state(networks: Networks) -> train.TrainState:
    return train.init_state(0, features.feature_channels(networks, LEVELS), PROBLEM, EXTENT)


def maps_of(networks: Networks, heads: mapping.Heads, precision: str = "float32") -> ScoreMaps:
    way = dataclasses.replace(PLAIN, precision=precision)
    spec = scoring.scoring_spec(dataclasses.replace(CONFIG, scoring=way))
    return score(networks, MappingModel(fold(heads)), IMAGES, spec=spec)


def test_steps_and_maps(weights: str, networks: Networks) -> None:
    """Three steps on whole images, then the anomaly maps of the trained heads; tuned as well."""
    from launch.benchmark.reference import torch_pfm
    from launch.benchmark.reference.bridge import reference

    state = first_state(networks)
    model = reference(CONFIG, weights, state.heads)
    found = features.extract(networks, IMAGES, LEVELS)
    rows = jax.tree.map(lambda f: f.reshape(-1, f.shape[-1]), found)
    batch = Batch(rows, {level: jnp.ones(len(pair.source)) for level, pair in rows.items()})
    step = jax.jit(train.step, static_argnames="problem")
    for _ in range(3):
        state, losses = step(state, batch, problem=PROBLEM)
        expected = model.train_step(torch.from_numpy(IMAGES))
        for level in LEVELS:
            assert float(losses[level]) == pytest.approx(expected[level], rel=2e-4)
    ours = maps_of(networks, state.heads)
    for theirs in (model, copy.deepcopy(model).tuned()):
        fused, scores = torch_pfm.score(theirs, torch.from_numpy(IMAGES))
        np.testing.assert_allclose(ours.fused, fused.numpy(), atol=2e-3)
        np.testing.assert_allclose(ours.image_scores, scores.numpy(), atol=2e-3)


def test_maps_of_the_same_heads(weights: str, networks: Networks) -> None:
    from launch.benchmark.reference import torch_pfm
    from launch.benchmark.reference.bridge import reference

    state = first_state(networks)
    model = reference(CONFIG, weights, state.heads)
    fused, _ = torch_pfm.score(model, torch.from_numpy(IMAGES))
    ours = maps_of(networks, state.heads)
    np.testing.assert_allclose(ours.fused, fused.numpy(), atol=1e-5)
    half = maps_of(networks, state.heads, "bfloat16")
    assert 0 < abs(half.fused - ours.fused).max() < 0.05
