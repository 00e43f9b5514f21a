"""Each method against its definition, in NumPy, on features of a small random network."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist, mahalanobis

from pfm_jax.backbones.networks import Network, load_networks
from pfm_jax.baselines import cnn_dict, features, padim, patchcore, spade
from pfm_jax.config import NetworksConfig
from pfm_jax.datasets.inputs import examples
from pfm_jax.methods import CnnDict, Padim, PatchCore, Spade
from pfm_jax.model.features import activations
from pfm_jax.system import devices
from pfm_jax.types import InputError
from tests.synthetic import texture

SIZE = 64
NORMAL = np.stack([texture(seed, SIZE) for seed in range(5)])
NEW = jnp.stack([texture(seed, SIZE) for seed in (20, 21, 22)])
KEY = jax.random.key(3)


@pytest.fixture(scope="module")
def network() -> Network:
    config = NetworksConfig("resnet18", "resnet18", pretrained=False)
    return load_networks(config, ("conv2_x", "conv3_x", "conv4_x"))[0].source


def pyramid(network: Network, images: np.ndarray | jax.Array) -> dict[str, np.ndarray]:
    found = activations(network, jnp.asarray(images))
    return {stage: np.asarray(array, np.float64) for stage, array in found.items()}


def at_finest(found: dict[str, np.ndarray], stages: tuple[str, ...]) -> np.ndarray:
    """All stages at the finest grid, position by position."""
    side = found[stages[0]].shape[1]
    parts = []
    for stage in stages:
        where = np.arange(side) * found[stage].shape[1] // side
        parts.append(found[stage][:, where][:, :, where])
    return np.concatenate(parts, -1)


def test_spade_is_two_brute_force_searches(network: Network) -> None:
    method = Spade(neighbours=3)
    memory = spade.fit(network, examples(NORMAL), SIZE, method, KEY)
    found = spade.maps(network, memory, NEW, method)
    normal, new = pyramid(network, NORMAL), pyramid(network, NEW)
    distances = cdist(new["conv4_x"].mean((1, 2)), normal["conv4_x"].mean((1, 2)))
    chosen = np.argsort(distances)[:, :3]
    squares = np.take_along_axis(distances, chosen, 1) ** 2
    np.testing.assert_allclose(found.image_scores, squares.mean(1), rtol=1e-4)
    everywhere, here = (at_finest(one, method.stages) for one in (normal, new))
    for image, near in enumerate(chosen):
        rows = everywhere[near].reshape(-1, everywhere.shape[-1])
        own = here[image].reshape(-1, here.shape[-1])
        expected = cdist(own, rows, "sqeuclidean").min(1).reshape(here.shape[1:3])
        # Kept as float16, which is what the tolerance is for.
        np.testing.assert_allclose(found.maps[image], expected, rtol=0.01, atol=0.01)


def test_spade_with_fewer_images_than_neighbours_uses_all(network: Network) -> None:
    few, many = (
        spade.maps(network, spade.fit(network, examples(NORMAL), SIZE, m, KEY), NEW, m)
        for m in (Spade(neighbours=5), Spade(neighbours=50))
    )
    np.testing.assert_array_equal(few.maps, many.maps)


def test_patchcore_is_a_brute_force_search(network: Network) -> None:
    method = PatchCore(channels=96, coreset=0.2, neighbours=4)
    memory = patchcore.fit(network, examples(NORMAL), SIZE, method, KEY)
    kept = np.asarray(memory["vectors"], np.float64)
    assert kept.shape == (round(0.2 * 5 * 64), 192)
    found = patchcore.maps(network, memory, NEW, method)
    rows = np.asarray(patchcore.positions(network, NEW, method), np.float64)
    for image in range(len(NEW)):
        distances = cdist(rows[image].reshape(-1, 192), kept)
        np.testing.assert_allclose(np.ravel(found.maps[image]), distances.min(1), rtol=1e-4)
        worst = distances.min(1).argmax()
        closest = distances[worst].argmin()
        near = np.argsort(cdist(kept[[closest]], kept)[0])[:4]
        weight = 1 - np.exp(distances[worst, closest]) / np.exp(distances[worst, near]).sum()
        expected = weight * distances[worst, closest]
        np.testing.assert_allclose(found.image_scores[image], expected, rtol=1e-3)


def test_one_neighbour_leaves_the_largest_distance(network: Network) -> None:
    """Its weight would be 0: there is no neighbourhood to be far from."""
    method = PatchCore(channels=8, coreset=0.1, neighbours=1)
    memory = patchcore.fit(network, examples(NORMAL), SIZE, method, KEY)
    found = patchcore.maps(network, memory, NEW, method)
    np.testing.assert_array_equal(found.image_scores, found.maps.max((1, 2)))


def test_patchcore_draws_from_too_many_positions_and_says_so(
    network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    method = PatchCore(channels=8, coreset=1.0, most_positions=100)
    memory = patchcore.fit(network, examples(NORMAL), SIZE, method, KEY)
    assert memory["vectors"].shape == (100, 16)
    assert len(np.unique(memory["vectors"], axis=0)) == 100
    assert "100 of 320 positions" in caplog.text


def test_memories_grow_as_those_of_more_images(network: Network) -> None:
    """As large as what is fitted to twice the images; a coreset no larger than allowed."""
    method = PatchCore(channels=8, coreset=0.1, most_positions=500)
    twice = np.concatenate([NORMAL, NORMAL])
    for room, settings in ((spade, Spade()), (patchcore, method)):
        one, two = (
            room.fit(network, examples(images), SIZE, settings, KEY) for images in (NORMAL, twice)
        )
        grown = room.grown(one, settings, 2.0)
        assert {k: v.shape for k, v in grown.items()} == {k: v.shape for k, v in two.items()}
    assert len(patchcore.grown(one, method, 100.0)["vectors"]) == 50


def test_padim_is_a_mahalanobis_distance(network: Network) -> None:
    method = Padim(channels=12)
    memory = padim.fit(network, examples(NORMAL), SIZE, method, KEY)
    drawn = np.asarray(memory["channels"])
    assert len(set(drawn.tolist())) == 12
    normal, new = (
        at_finest(pyramid(network, images), method.stages)[..., drawn] for images in (NORMAL, NEW)
    )
    found = np.asarray(padim.maps(network, memory, NEW, method).maps)
    for row, column in ((0, 0), (3, 7), (15, 15)):
        covariance = np.cov(normal[:, row, column].T) + 0.01 * np.eye(12)
        for image in range(len(NEW)):
            inverse, mean = np.linalg.inv(covariance), normal[:, row, column].mean(0)
            expected = mahalanobis(new[image, row, column], mean, inverse)
            np.testing.assert_allclose(found[image, row, column], expected, rtol=1e-3)


def test_cnn_dict_is_a_mean_distance_to_words(network: Network) -> None:
    method = CnnDict(words=6, neighbours=2)
    memory = cnn_dict.fit(network, examples(NORMAL), SIZE, method, KEY)
    found = np.asarray(cnn_dict.maps(network, memory, NEW, method).maps)
    assert found.shape == (3, 8, 8)
    basis = np.asarray(memory["components"], np.float64)
    np.testing.assert_allclose(basis @ basis.T, np.eye(len(basis)), atol=1e-5)
    words = np.asarray(memory["words"], np.float64)
    # A patch that lies inside, cut by hand: 16 pixels around the centre of a square of 8.
    patch = NEW[1:2, 3 * 8 - 4 : 3 * 8 + 12, 5 * 8 - 4 : 5 * 8 + 12]
    feature = pyramid(network, patch)["conv4_x"].mean((0, 1, 2)) - np.asarray(memory["mean"])
    nearest = np.sort(cdist((basis @ feature)[None], words)[0])[:2]
    np.testing.assert_allclose(found[1, 3, 5], nearest.mean(), rtol=1e-3)


def test_components_keep_the_variance_asked_for(network: Network) -> None:
    some, most = (
        cnn_dict.fit(network, examples(NORMAL), SIZE, CnnDict(words=2, variance=v), KEY)
        for v in (0.5, 0.99)
    )
    rows = np.asarray(cnn_dict.patches(network, jnp.asarray(NORMAL), CnnDict())).reshape(-1, 256)
    centred = rows - rows.mean(0)
    for memory, wanted in ((some, 0.5), (most, 0.99)):
        kept = np.square(centred @ np.asarray(memory["components"]).T).sum()
        assert kept / np.square(centred).sum() >= wanted - 1e-5
    assert len(some["components"]) < len(most["components"])


@pytest.mark.parametrize("method", [PatchCore(coreset=0.1), Padim(channels=5), CnnDict(words=3)])
def test_fits_depend_on_their_key_alone(
    network: Network, method: PatchCore | Padim | CnnDict
) -> None:
    fit = {PatchCore: patchcore.fit, Padim: padim.fit, CnnDict: cnn_dict.fit}[type(method)]
    one, same, other = (
        fit(network, examples(NORMAL), SIZE, method, jax.random.key(seed)) for seed in (0, 0, 1)
    )
    jax.tree.map(np.testing.assert_array_equal, one, same)
    assert any(not np.array_equal(one[name], other[name]) for name in one)


def test_features_that_do_not_fit_are_refused_before_they_are_made(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "free_on_host", lambda: 100_000)
    with pytest.raises(InputError, match=r"features of 5 images take .* set --config.data.shots"):
        features.collected(
            lambda images: activations(network, jnp.asarray(images)), examples(NORMAL), SIZE
        )


def test_an_unreadable_image_is_named(network: Network, tmp_path: Path) -> None:
    (tmp_path / "torn.png").write_bytes(b"no image")
    method = dataclasses.replace(Padim(), channels=3)
    with pytest.raises(InputError, match=r"torn\.png"):
        padim.fit(network, examples([tmp_path / "torn.png"]), SIZE, method, KEY)
