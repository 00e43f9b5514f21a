"""A memory against the features of the images that it is of."""

from __future__ import annotations

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from pfm_jax.backbones.networks import Networks, load_networks
from pfm_jax.config import Config
from pfm_jax.datasets.inputs import examples
from pfm_jax.model import patches
from pfm_jax.model.features import pyramids
from pfm_jax.model.tiles import training_tiles
from pfm_jax.runs import learning
from pfm_jax.sweeps.plan import replaced
from pfm_jax.training import memory
from pfm_jax.training.cache import FeatureCache, build_cache, select
from pfm_jax.types import Pair
from tests.synthetic import LEVELS, small_config, texture

NORMAL = np.stack([texture(seed, 96) for seed in range(6)])
CONFIG = replaced(small_config(), {"data.image_size": 96, "networks.pretrained": False})
TILED = replaced(CONFIG, {"data.tile_size": 64, "data.tile_overlap": 48})


@pytest.fixture(scope="module")
def networks() -> Networks:
    return load_networks(CONFIG.networks, CONFIG.levels)[0]


def positions(networks: Networks, images: np.ndarray) -> np.ndarray:
    """Features `[P, N, C]` of each position of some images or tiles."""
    found = patches.memory_features(pyramids(networks, jnp.asarray(images)).target, CONFIG.levels)
    return np.asarray(found).reshape(len(images), -1, found.shape[-1]).swapaxes(0, 1)


def of_positions(kept: np.ndarray) -> np.ndarray:
    """Rows `[T, P, K, C]` of a memory."""
    return kept.reshape(kept.shape[0], -1, *kept.shape[3:])


def same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pairs of rows that are equal, up to what another batch size rounds."""
    return cdist(a, b) < 1e-3 * np.linalg.norm(b, axis=1).mean()


def fit(networks: Networks, images: np.ndarray, config: Config, room: int = 0) -> np.ndarray:
    candidates = learning.candidates_of(config, networks, examples(images))
    return memory.fit(candidates, room)


@pytest.fixture
def two_kept(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Two features of each position are kept."""
    memory.choose.clear_cache()
    monkeypatch.setattr(patches, "KEPT", 2)
    yield
    memory.choose.clear_cache()


@pytest.mark.parametrize("room", [0, 100])
@pytest.mark.parametrize("config", [CONFIG, TILED], ids=["whole", "tiles"])
def test_few_images_are_kept_whole(networks: Networks, config: Config, room: int) -> None:
    """Every position of six images, of whole ones or of their nine tiles, which overlap."""
    kept = fit(networks, NORMAL, config, room)
    spec = patches.memory_spec(config)
    assert spec and kept.shape == patches.memory_shape(networks, spec).shape
    tops = (0, 16, 32) if config is TILED else (0,)
    side = 64 if config is TILED else 96
    corners = [(top, left) for top in tops for left in tops]
    for own, (top, left) in zip(of_positions(kept), corners, strict=True):
        seen = positions(networks, NORMAL[:, top : top + side, left : left + side])
        for features, remembered in zip(seen, own, strict=True):
            equal = same(features, remembered)
            assert equal.any(1).all(), "every image is remembered"
            assert equal.any(0).all(), "nothing else is"


@pytest.mark.usefixtures("two_kept")
def test_the_most_different_images_are_kept(networks: Networks) -> None:
    """Two images, one of them four times: one of either is kept."""
    kept = fit(networks, np.stack([NORMAL[0], *[NORMAL[1]] * 4, NORMAL[0]]), CONFIG)
    for features, remembered in zip(
        positions(networks, NORMAL[:2]), of_positions(kept)[0], strict=True
    ):
        assert same(features, remembered).sum(1).tolist() == [1, 1]


@pytest.mark.parametrize("room", [0, 100, 130])
def test_greedy_choice_from_the_most_typical_image(room: int) -> None:
    """By its definition at each position, whatever there is room for."""
    rng = np.random.default_rng(0)
    candidates = rng.normal(size=(50, 2, 3, 4, 6)).astype(np.float32)
    kept = memory.fit(candidates, room)
    assert kept.shape == (2, 3, 4, patches.KEPT, 6)
    for place in np.ndindex(2, 3, 4):
        own = candidates[(slice(None), *place)]
        chosen = [int(np.linalg.norm(own - own.mean(0), axis=1).argmin())]
        while len(chosen) < patches.KEPT:
            chosen.append(int(cdist(own, own[chosen]).min(1).argmax()))
        np.testing.assert_array_equal(kept[place], own[chosen])


@pytest.mark.parametrize("config", [CONFIG, TILED], ids=["whole", "tiles"])
@pytest.mark.parametrize("place", ["device", "host"])
def test_candidates_come_with_the_features_that_heads_learn_from(
    networks: Networks, config: Config, place: str
) -> None:
    """The same as without them, wherever those are kept; here more than a batch."""
    images = examples(np.concatenate([NORMAL, NORMAL[::-1]]))
    cut, spec = training_tiles(config.data), patches.memory_spec(config)
    features = build_cache(networks, images, cut, LEVELS, place, 0, spec)
    alone = learning.candidates_of(config, networks, images)
    assert features.candidates is not None
    np.testing.assert_allclose(features.candidates, alone, atol=1e-4 * np.abs(alone).max())
    without = build_cache(networks, images, cut, LEVELS, place)
    jax.tree.map(np.testing.assert_array_equal, features.rows, without.rows)
    assert without.candidates is None


def test_a_cache_gives_candidates_for_their_own_memory_alone() -> None:
    rows = {level: Pair(np.zeros((2, 3)), np.zeros((2, 4))) for level in LEVELS}
    spec, other = (patches.memory_spec(config) for config in (CONFIG, TILED))
    shared = FeatureCache(rows, "host", np.ones((1, 1, 1, 1, 1), np.float32), spec)
    some = select(shared, LEVELS[:1], spec)
    assert set(some.rows) == {*LEVELS[:1]} and some.candidates is shared.candidates
    for wanted in (other, None):
        assert select(shared, LEVELS, wanted).candidates is None
