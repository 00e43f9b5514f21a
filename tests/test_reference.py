"""The whole method against the PyTorch reference, where torch is installed (extra `bench`)."""

from __future__ import annotations

import copy
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pfm_jax import features, mapping, pretrained, scoring, train
from pfm_jax.config import Config, MappingConfig, NetworksConfig, ScoringConfig, TrainConfig
from pfm_jax.types import Batch
from tests.goldens.seeded import seeded_bytes
from tests.synthetic import LEVELS, make_weights

torch = pytest.importorskip("torch", reason="torch is in the extra `bench`")
NAMES = ("resnet18", "resnet50_caffe")
PLAIN = ScoringConfig("float32", smoothing=0.0, relative=False)
CONFIG = Config(
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


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(make_weights(tmp_path_factory.mktemp("weights"), *NAMES))


@pytest.fixture(scope="module")
def networks(weights: str) -> features.Networks:
    return features.pair(*(pretrained.load(name, weights) for name in NAMES))


def test_steps_and_maps(weights: str, networks: features.Networks) -> None:
    """Three steps on whole images, then the anomaly maps of the trained heads; tuned as well."""
    from tests.reference import torch_pfm
    from tests.reference.bridge import reference

    found = features.extract(networks, IMAGES, LEVELS)
    state = train.init_state(CONFIG, found, len(IMAGES))
    model = reference(CONFIG, weights, state)
    rows = jax.tree.map(lambda f: f.reshape(-1, f.shape[-1]), found)
    batch = Batch(rows, {k: jnp.ones(len(r)) for k, r in rows.source.items()})
    recipe = train.Recipe(CONFIG.mapping, CONFIG.train)
    update = train.optimizer(CONFIG.train, 3, state.params)
    step = jax.jit(lambda s: train.train_step(s, batch, recipe, update))
    for _ in range(3):
        state, losses = step(state)
        expected = model.train_step(torch.from_numpy(IMAGES))
        for level in LEVELS:
            assert float(losses[level]) == pytest.approx(expected[level], rel=2e-4)
    heads = jax.jit(mapping.fold)(state.params, state.batch_stats)
    ours = scoring.score_images(networks, heads, IMAGES, CONFIG.mapping, PLAIN)
    for theirs in (model, copy.deepcopy(model).tuned()):
        fused, scores = torch_pfm.score(theirs, torch.from_numpy(IMAGES))
        np.testing.assert_allclose(ours.fused, fused.numpy(), atol=2e-3)
        np.testing.assert_allclose(ours.image_scores, scores.numpy(), atol=2e-3)


def test_maps_of_the_same_heads(weights: str, networks: features.Networks) -> None:
    from tests.reference import torch_pfm
    from tests.reference.bridge import reference

    shapes = features.feature_shapes(networks, 64, LEVELS)
    state = train.init_state(CONFIG, shapes, 1)
    heads = jax.jit(mapping.fold)(state.params, state.batch_stats)
    fused, _ = torch_pfm.score(reference(CONFIG, weights, state), torch.from_numpy(IMAGES))
    ours = scoring.score_images(networks, heads, IMAGES, CONFIG.mapping, PLAIN)
    np.testing.assert_allclose(ours.fused, fused.numpy(), atol=1e-5)
    half = scoring.score_images(
        networks, heads, IMAGES, CONFIG.mapping, dataclasses.replace(PLAIN, precision="bfloat16")
    )
    assert 0 < abs(half.fused - ours.fused).max() < 0.05
