"""A memory against the positions of the images that it is of."""

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
from pfm_jax.sweeps.plan import replaced
from pfm_jax.training import memory
from tests.synthetic import small_config, texture

NORMAL = np.stack([texture(seed, 128) for seed in range(6)])
CONFIG = replaced(small_config(), {"data.image_size": 128, "networks.pretrained": False})
TILED = replaced(CONFIG, {"data.tile_size": 64, "data.tile_overlap": 0})


@pytest.fixture(scope="module")
def networks() -> Networks:
    return load_networks(CONFIG.networks, CONFIG.levels)[0]


def positions(networks: Networks, images: np.ndarray) -> np.ndarray:
    found = patches.of_levels(pyramids(networks, jnp.asarray(images)).target, CONFIG.levels)
    return np.asarray(found).reshape(-1, found.shape[-1])


def tiles_of(images: np.ndarray) -> np.ndarray:
    corners = [(y, x) for y in (0, 64) for x in (0, 64)]
    return np.concatenate([images[:, y : y + 64, x : x + 64] for y, x in corners])


def same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Pairs of rows that are equal, up to what another batch size rounds."""
    return cdist(a, b) < 1e-3 * np.linalg.norm(b, axis=1).mean()


@pytest.mark.parametrize("config", [CONFIG, TILED], ids=["whole", "tiles"])
def test_what_few_images_have_is_kept_whole(networks: Networks, config: Config) -> None:
    """Six images of 256 positions, in whole or as four tiles: fewer than a memory holds."""
    kept = np.asarray(memory.fit(networks, examples(NORMAL), config))
    assert kept.shape == patches.memory_shape(networks, config.levels).shape
    seen = NORMAL if config is CONFIG else tiles_of(NORMAL)
    equal = same(positions(networks, seen), kept)
    assert equal.any(1).all(), "every position is remembered"
    assert equal.any(0).all(), "nothing else is"


def test_of_more_a_part_of_every_image_is_kept(
    networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other positions with another seed, and the same with the same."""
    monkeypatch.setattr(memory, "CANDIDATES", 120)
    kept = np.asarray(memory.fit(networks, examples(NORMAL), CONFIG))
    for image in NORMAL:
        assert same(positions(networks, image[None]), kept).any(1).sum() == 20
    again = memory.fit(networks, examples(NORMAL), CONFIG)
    np.testing.assert_array_equal(kept, again)
    other = np.asarray(memory.fit(networks, examples(NORMAL), dataclasses.replace(CONFIG, seed=1)))
    assert not same(other, kept).any(1).all()


def test_of_more_images_than_that_some_are_seen_and_it_is_said(
    networks: Networks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(memory, "CANDIDATES", 4)
    kept = np.asarray(memory.fit(networks, examples(NORMAL), CONFIG))
    seen = [same(positions(networks, image[None]), kept).any() for image in NORMAL]
    assert seen == [True, False] * 3
    assert "the memory is of 3 of 6 images" in caplog.text
