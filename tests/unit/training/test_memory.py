"""A memory against the features of the images that it is of."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from pfm_jax.backbones.networks import Networks, load_networks
from pfm_jax.config import Config
from pfm_jax.datasets.inputs import examples
from pfm_jax.model import patches
from pfm_jax.model.features import pyramids
from pfm_jax.model.tiles import scoring_tiles
from pfm_jax.sweeps.plan import replaced
from pfm_jax.training import memory
from tests.synthetic import small_config, texture

NORMAL = np.stack([texture(seed, 96) for seed in range(6)])
CONFIG = replaced(small_config(), {"data.image_size": 96, "networks.pretrained": False})
TILED = replaced(CONFIG, {"data.tile_size": 64, "data.tile_overlap": 32})


@pytest.fixture(scope="module")
def networks() -> Networks:
    return load_networks(CONFIG.networks, CONFIG.levels)[0]


def positions(networks: Networks, images: np.ndarray) -> np.ndarray:
    """Features `[P, N, C]` of each position of some images or tiles."""
    found = patches.of_levels(pyramids(networks, jnp.asarray(images)).target, CONFIG.levels)
    return np.asarray(found).reshape(len(images), -1, found.shape[-1]).swapaxes(0, 1)


def of_positions(kept: np.ndarray) -> np.ndarray:
    """Rows `[T, P, K, C]` of a memory."""
    return kept.reshape(kept.shape[0], -1, *kept.shape[3:])


def same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pairs of rows that are equal, up to what another batch size rounds."""
    return cdist(a, b) < 1e-3 * np.linalg.norm(b, axis=1).mean()


@pytest.mark.parametrize("config", [CONFIG, TILED], ids=["whole", "tiles"])
def test_few_images_are_kept_whole(networks: Networks, config: Config) -> None:
    """Every position of six images, of whole ones or of their four tiles, which overlap."""
    kept = np.asarray(memory.fit(networks, examples(NORMAL), config))
    shape = patches.memory_shape(networks, config.levels, scoring_tiles(config.data)).shape
    assert kept.shape == shape
    tops = (0, 32) if config is TILED else (0,)
    side = 64 if config is TILED else 96
    corners = [(top, left) for top in tops for left in tops]
    for own, (top, left) in zip(of_positions(kept), corners, strict=True):
        seen = positions(networks, NORMAL[:, top : top + side, left : left + side])
        for features, remembered in zip(seen, own, strict=True):
            equal = same(features, remembered)
            assert equal.any(1).all(), "every image is remembered"
            assert equal.any(0).all(), "nothing else is"


def test_the_most_different_images_are_kept(
    networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two images, one of them four times: one of either is kept, whatever the seed."""
    monkeypatch.setattr(patches, "KEPT", 2)
    images = np.stack([NORMAL[0], *[NORMAL[1]] * 4, NORMAL[0]])
    for seed in (0, 1):
        config = dataclasses.replace(CONFIG, seed=seed)
        kept = np.asarray(memory.fit(networks, examples(images), config))
        for features, remembered in zip(
            positions(networks, NORMAL[:2]), of_positions(kept)[0], strict=True
        ):
            assert same(features, remembered).sum(1).tolist() == [1, 1]


def test_what_is_kept_of_many_depends_on_the_seed_alone(
    networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other features with another seed, and the same with the same."""
    monkeypatch.setattr(patches, "KEPT", 2)
    kept = np.asarray(memory.fit(networks, examples(NORMAL), CONFIG))
    again = memory.fit(networks, examples(NORMAL), CONFIG)
    np.testing.assert_array_equal(kept, again)
    other = np.asarray(memory.fit(networks, examples(NORMAL), dataclasses.replace(CONFIG, seed=1)))
    pairs = zip(of_positions(other)[0], of_positions(kept)[0], strict=True)
    assert not all(same(one, first).any(1).all() for one, first in pairs)


def test_of_more_images_than_that_some_are_seen_and_it_is_said(
    networks: Networks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory, "CANDIDATES", 3 * 12 * 12)
    kept = of_positions(np.asarray(memory.fit(networks, examples(NORMAL), CONFIG)))[0]
    seen = positions(networks, NORMAL)
    equal = np.stack([same(a, b).any(1) for a, b in zip(seen, kept, strict=True)])
    assert (equal == [True, False] * 3).all()
    assert "the memory is of 3 of 6 images" in caplog.text
