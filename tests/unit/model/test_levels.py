"""Levels as pairs of stages: of one network, and of two whose grids differ."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pfm_jax.backbones.networks import Networks, load_networks
from pfm_jax.config import Config, NetworksConfig
from pfm_jax.model.features import extract, feature_channels
from pfm_jax.model.problem import mapping_problem
from pfm_jax.recipes import validate
from pfm_jax.sweeps.plan import replaced
from pfm_jax.types import InputError, level_number, stages
from tests.synthetic import make_weights, texture

VIT = "vit_tiny_patch16_224"
IMAGES = np.stack([texture(seed, 64) for seed in range(2)])


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_weights(tmp_path_factory.mktemp("weights"), "resnet18", VIT)


def networks(weights: Path, source: str, target: str, *levels: str) -> Networks:
    return load_networks(NetworksConfig(source, target), levels, str(weights))[0]


def test_a_level_names_one_stage_or_two() -> None:
    assert stages("conv4_x") == ("conv4_x", "conv4_x")
    assert stages("conv3_x:8-11") == ("conv3_x", "8-11")


def test_levels_differ_in_what_is_drawn_and_the_old_ones_are_numbered_as_ever() -> None:
    assert [level_number(f"conv{n}_x") for n in (2, 3, 4)] == [0, 1, 2]
    assert len({level_number(level) for level in ("0:1", "1:0", "0", "conv4_x:0")}) == 4


def test_two_stages_of_one_network_are_read_in_one_pass(weights: Path) -> None:
    both = networks(weights, VIT, VIT, "0-1:2", "1:2")
    assert both.target is None
    assert dict(both.source.backbone.strides) == {"0-1": 16, "1": 16, "2": 16}
    found = extract(both, IMAGES, ("0-1:2", "1:2"))
    alone = networks(weights, VIT, VIT, "2", "0-1")
    for stage, side in (("0-1", "source"), ("2", "target")):
        expected = extract(alone, IMAGES, (stage,))[stage].source
        np.testing.assert_allclose(getattr(found["0-1:2"], side), expected, rtol=0, atol=1e-6)
    assert feature_channels(both, ("0-1:2",)) == {"0-1:2": (192, 192)}


@pytest.mark.parametrize("turned", [False, True])
def test_the_coarser_grid_is_resized_to_the_finer(weights: Path, turned: bool) -> None:
    """By linear interpolation between the centres of positions, then to norm 1 again."""
    names, level = ((VIT, "resnet18"), "1:conv3_x") if turned else (("resnet18", VIT), "conv3_x:1")
    pair = extract(networks(weights, *names, level), IMAGES, (level,))[level]
    fine, coarse = pair[::-1] if turned else pair
    assert fine.shape[:3] == coarse.shape[:3] == (2, 8, 8)
    small = np.asarray(extract(networks(weights, VIT, VIT, "1"), IMAGES, ("1",))["1"].source)
    at, centres = (np.arange(8) + 0.5) / 2 - 0.5, np.arange(4)
    expected = np.empty((2, 8, 8, 192))
    for image, channel in np.ndindex(2, 192):
        rows = np.stack([np.interp(at, centres, row) for row in small[image, :, :, channel]])
        columns = [np.interp(at, centres, column) for column in rows.T]
        expected[image, :, :, channel] = np.stack(columns).T
    expected /= np.linalg.norm(expected, axis=-1, keepdims=True)
    np.testing.assert_allclose(coarse, expected, rtol=0, atol=1e-6)


def test_positions_of_a_tile_follow_the_finer_stride() -> None:
    recipe = recipe_of("resnet18", VIT, "conv3_x:0-3", "conv4_x:4-7")
    assert dict(mapping_problem(recipe).positions) == {"conv3_x:0-3": 32**2, "conv4_x:4-7": 16**2}


def recipe_of(source: str, target: str, *levels: str, size: int = 256) -> Config:
    fields = {
        "networks.source": source,
        "networks.target": target,
        "data.image_size": size,
        "mapping.latent": dict.fromkeys(levels, 8),
        "train.positions": dict.fromkeys(levels, 8),
        "train.learning_rate": dict.fromkeys(levels, 1e-3),
    }
    return replaced(Config(), fields)


@pytest.mark.parametrize(
    ("names", "level", "size", "said"),
    [
        (("dinov2_vits14", "dinov2_vits14"), "0:1", 256, "a positive multiple of 14"),
        (("dinov2_vits14", "resnet18"), "0:conv4_x", 224 + 14, "a positive multiple of 112"),
        (("resnet18", VIT), "0:conv4_x", 256, "resnet18 has no stage '0'"),
        (("resnet18", VIT), "conv4_x", 256, "'conv4_x' is no stage of a transformer"),
        (("resnet19", VIT), "conv4_x:1", 256, "networks.source: unknown network 'resnet19'"),
    ],
)
def test_sizes_and_stages_that_do_not_fit_are_refused(
    names: tuple[str, str], level: str, size: int, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        validate(recipe_of(*names, level, size=size))


@pytest.mark.parametrize(
    ("names", "level", "size", "side"),
    [
        (("dinov2_vits14_reg", "dinov2_vits14_reg"), "2-5:6-9", 392, 28),
        (("dinov2_vits14", "resnet18"), "0:conv4_x", 336, 24),
    ],
)
def test_sizes_that_fit(names: tuple[str, str], level: str, size: int, side: int) -> None:
    recipe = recipe_of(*names, level, size=size)
    validate(recipe)
    assert dict(mapping_problem(recipe).positions) == {level: side**2}
