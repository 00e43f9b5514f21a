"""Feature cache: rows lie data set after data set, image after image, tile after tile."""

from __future__ import annotations

from pathlib import Path

import jax
import numpy as np
import pytest

from pfm_jax.backbones.networks import load_networks
from pfm_jax.datasets.inputs import examples
from pfm_jax.model.features import extract
from pfm_jax.model.tiles import Tiles
from pfm_jax.training.cache import build_cache, capacity
from tests.synthetic import LEVELS, make_weights, small_config, texture

TILES = Tiles(128, 64, 0)


@pytest.mark.parametrize("place", ["device", "host"])
def test_tiled_data_sets_do_not_mix(place: str, tmp_path: Path) -> None:
    """Eleven images in batches of eight: the second batch holds images of both data sets."""
    weights = make_weights(tmp_path, "resnet18", "resnet18_caffe")
    networks, _ = load_networks(small_config().networks, LEVELS, str(weights))
    images = [np.stack([texture(9 * k + i, 128) for i in range(n)]) for k, n in ((0, 6), (1, 5))]
    given = [*examples(images[0]), *examples(images[1])]
    cache = build_cache(networks, given, TILES, LEVELS, place)
    pixels = np.concatenate(images).reshape(11, 2, 64, 2, 64, 3)
    tiles = pixels.swapaxes(2, 3).reshape(-1, 64, 64, 3)
    expected = extract(networks, tiles, LEVELS)
    for level, pair in expected.items():
        for rows, features in zip(cache.rows[level], pair, strict=True):
            flat = np.asarray(features).reshape(-1, features.shape[-1])
            real = np.asarray(rows, np.float32)[: len(flat)]
            np.testing.assert_allclose(real, flat, atol=1e-3)
    assert jax.tree.all(jax.tree.map(lambda r: r.dtype == np.float16, cache.rows))


def test_capacities_are_few_and_hold_whole_batches() -> None:
    found = [capacity(count) for count in range(1, 3000)]
    for count, room in enumerate(found, 1):
        assert -(-count // 8) * 8 <= room <= max(8, 1.5 * count + 8)
        assert room % 8 == 0
    assert len(set(found)) < 20
