"""Features of a memory and distances to it, against NumPy."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
from scipy.spatial.distance import cdist

from pfm_jax.backbones.networks import load_networks
from pfm_jax.config import NetworksConfig
from pfm_jax.model import patches, scoring
from pfm_jax.model.features import pyramids
from pfm_jax.model.tiles import scoring_tiles
from tests.synthetic import small_config, texture

RNG = np.random.default_rng(0)
PYRAMID = {
    name: jnp.asarray(RNG.normal(size=(2, side, side, channels)), jnp.float32)
    for name, side, channels in (("fine", 8, 6), ("mid", 4, 5), ("low", 2, 1024))
}


def pooled(maps: np.ndarray) -> np.ndarray:
    """Means of 3x3 positions, of zeros outside."""
    padded = np.pad(maps, ((0, 0), (1, 1), (1, 1), (0, 0)))
    _, height, width, _ = maps.shape
    parts = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return np.mean(parts, 0)


def test_positions_and_channels_are_averaged() -> None:
    """5 channels to 4, and to 7, as torch's `adaptive_avg_pool1d`."""
    for channels in (4, 7):
        found = patches.patches(PYRAMID, ("mid",), channels)
        bounds = [(k * 5 // channels, -(-(k + 1) * 5 // channels)) for k in range(channels)]
        local = pooled(np.asarray(PYRAMID["mid"]))
        expected = np.stack([local[..., first:last].mean(-1) for first, last in bounds], -1)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_memory_is_of_all_stages_but_the_finest() -> None:
    levels = ("fine", "fine>mid", "mid<low", "low")
    found = patches.memory_features(PYRAMID, levels)
    np.testing.assert_array_equal(found, patches.patches(PYRAMID, ("mid", "low"), patches.CHANNELS))
    assert found.shape == (2, 4, 4, 2 * patches.CHANNELS)
    one = patches.memory_features(PYRAMID, ("fine:mid", "low:mid"))
    np.testing.assert_array_equal(one, patches.patches(PYRAMID, ("mid",), patches.CHANNELS))


def nearest_around(features: np.ndarray, memory: np.ndarray) -> np.ndarray:
    """Distances of features `[B, h, w, C]` to the nearest of the places at most a step away."""
    batch, height, width, channels = features.shape
    found = np.empty((batch, height, width))
    for y in range(height):
        for x in range(width):
            near = memory[max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].reshape(-1, channels)
            found[:, y, x] = cdist(features[:, y, x], near).min(1)
    return found


def test_a_distance_is_to_the_nearest_around() -> None:
    features, memory = RNG.normal(size=(2, 3, 5, 4)), RNG.normal(size=(3, 5, 6, 4))
    given = (jnp.asarray(array, jnp.float32) for array in (features, memory))
    found = patches.distances(*given)
    np.testing.assert_allclose(found, nearest_around(features, memory), rtol=1e-4)


def test_its_map_is_the_distance_to_the_nearest() -> None:
    """One more map of the detector, and a part of the geometric mean by its weight."""
    config = small_config()
    networks, _ = load_networks(
        dataclasses.replace(config.networks, pretrained=False), config.levels
    )
    spec = patches.MemorySpec(config.levels, scoring_tiles(config.data))
    memory = RNG.normal(size=patches.memory_shape(networks, spec).shape)
    model = scoring.untrained(networks, config)._replace(memory=jnp.asarray(memory, jnp.float32))
    images = jnp.stack([texture(seed) for seed in range(2)])
    plain = dataclasses.replace(
        config.scoring, relative={}, smoothing=0.0, precision="float32", weights={"memory": 3.0}
    )
    spec = scoring.scoring_spec(dataclasses.replace(config, scoring=plain))
    found = scoring.score(networks, model, images, spec)
    pyramid = pyramids(networks, images).target
    rows = np.asarray(patches.memory_features(pyramid, config.levels))
    near = nearest_around(rows, memory[0])
    whole = scoring.upsample(jnp.asarray(near, jnp.float32), 64, 64)
    np.testing.assert_allclose(found.levels["memory"], whole, rtol=1e-4)
    assert [*found.levels] == [*config.maps]
    logs = {name: np.log(np.maximum(maps, 1e-6)) for name, maps in found.levels.items()}
    fused = (sum(logs.values()) + 2 * logs["memory"]) / (len(logs) + 2)
    np.testing.assert_allclose(np.log(found.fused), fused, atol=1e-4)


def test_without_a_memory_there_is_no_map_of_it() -> None:
    off = dataclasses.replace(small_config().scoring, memory=False)
    config = dataclasses.replace(small_config(), scoring=off)
    networks, _ = load_networks(NetworksConfig("resnet18", "resnet18", False), config.levels)
    model = scoring.untrained(networks, config)
    assert model.memory is None
    images = jnp.asarray(texture(0)[None])
    found = scoring.score(networks, model, images, scoring.scoring_spec(config))
    assert [*found.levels] == [*config.maps] == [*config.mapping.latent]
