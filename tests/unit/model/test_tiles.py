"""Tiles: they cover the image, seams vanish, one tile is no tile."""

from __future__ import annotations

import itertools
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pfm_jax.backbones.networks import Networks, load_networks
from pfm_jax.config import PAPER_SCORING, DataConfig
from pfm_jax.model import patches, scoring, tiles
from pfm_jax.model.patches import MemorySpec
from pfm_jax.model.scoring import ScoringSpec
from pfm_jax.model.tiles import Tiles
from tests.synthetic import LEVELS, make_sources, small_config, texture

PLAIN = replace(PAPER_SCORING, precision="float32")

CUTS = [Tiles(96, 64, 16), Tiles(128, 64, 0), Tiles(512, 256, 64), Tiles(80, 64, 48)]


@pytest.mark.parametrize("cut", CUTS)
def test_tiles_cover_the_image_with_the_overlap(cut: Tiles) -> None:
    places = tiles.corners(cut)
    tops = sorted({top for top, _ in places})
    assert len(places) == len(tops) ** 2
    assert tops[0] == 0
    assert tops[-1] + cut.size == cut.image
    assert all(a + cut.size - b >= cut.overlap for a, b in itertools.pairwise(tops))
    fewer = len(tops) - 1
    assert fewer * cut.size - (fewer - 1) * cut.overlap < cut.image, "no more than it takes"
    images = np.arange(cut.image**2).reshape(1, cut.image, cut.image, 1)
    seen = np.unique(tiles.each(lambda tile, _: tile, jnp.asarray(images), cut))
    assert len(seen) == cut.image**2


@pytest.mark.parametrize("cut", CUTS)
def test_what_is_local_is_the_same_in_tiles(cut: Tiles) -> None:
    """A map that depends on each pixel alone comes out as it is without tiles, seams included."""
    images = np.random.default_rng(0).uniform(size=(2, cut.image, cut.image, 3)).astype(np.float32)

    def maps_of(part: jax.Array, _: None) -> dict[str, jax.Array]:
        return {"mean": part.mean(-1), "one": jnp.ones(part.shape[:3])}

    found = jax.jit(lambda x: tiles.blended(maps_of, x, cut))(images)
    np.testing.assert_allclose(found["mean"], images.mean(-1), atol=1e-6)
    np.testing.assert_allclose(found["one"], 1, atol=1e-6)


def test_seams_are_blended() -> None:
    """Tiles that disagree meet in a slope, not a step."""
    cut = Tiles(96, 64, 32)
    images = np.zeros((1, 96, 96, 1), np.float32)
    images[:, :, 64:] = 1  # only right-hand tiles have it in their last column
    given = jnp.asarray(images)
    found = tiles.blended(lambda t, _: {"m": jnp.ones(t.shape[:3]) * t[:, :1, -1:, 0]}, given, cut)
    row = np.asarray(found["m"])[0, 0]
    assert row[0] == 0 and row[-1] == 1
    assert np.abs(np.diff(row)).max() < 0.05
    assert (np.diff(row) >= -1e-6).all()


def test_tiles_of_a_recipe() -> None:
    assert tiles.scoring_tiles(DataConfig()) == Tiles(256, 256, 0)
    data = DataConfig(image_size=512, tile_size=256)
    assert tiles.scoring_tiles(data) == Tiles(512, 256, 64)
    assert len(tiles.corners(tiles.training_tiles(data))) == 4


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Networks:
    sources = make_sources(tmp_path_factory.mktemp("tiles"))
    return load_networks(small_config().networks, LEVELS, sources.weights_dir)[0]


@pytest.mark.slow
def test_a_tile_is_scored_as_an_image_of_its_own(networks: Networks) -> None:
    """By its own part of the memory."""
    config, cut = small_config(), Tiles(128, 64, 0)
    shape = patches.memory_shape(networks, MemorySpec(config.levels, cut)).shape
    memory = jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)
    model = scoring.untrained(networks, config)._replace(memory=memory)
    images = np.stack([texture(seed, 128) for seed in range(2)])
    score = jax.jit(scoring.score, static_argnames="spec")
    one = ScoringSpec(config.mapping, PLAIN, Tiles(64, 64, 0), "float32", "float32")
    whole = score(networks, model, images, one._replace(tiles=cut))
    for index, (top, left) in enumerate(tiles.corners(cut)):
        place = (slice(None), slice(top, top + 64), slice(left, left + 64))
        own = model._replace(memory=memory[index : index + 1])
        alone = score(networks, own, images[place], one)
        np.testing.assert_allclose(whole.fused[place], alone.fused, atol=1e-5)
    np.testing.assert_allclose(whole.image_scores, np.asarray(whole.fused).max((1, 2)))
