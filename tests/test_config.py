"""Recipes: every one is valid, survives JSON, hashes by value; every bad field is named."""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path

import pytest

from pfm_jax import backbones
from pfm_jax.config import Config, SweepConfig, from_dict, validate
from pfm_jax.types import InputError

RECIPES = sorted(
    path.stem
    for path in (Path(__file__).parents[1] / "configs").glob("*.py")
    if path.stem[0] != "_"
)


def recipe(name: str) -> Config:
    config = importlib.import_module(f"configs.{name}").get_config()
    return config.base if isinstance(config, SweepConfig) else config


@pytest.mark.parametrize("name", RECIPES)
def test_recipes(name: str) -> None:
    config = recipe(name)
    validate(config)
    assert importlib.import_module(f"configs.{name}").get_config().name == name
    for network in (config.networks.source, config.networks.target):
        assert backbones.get(network)
    again = from_dict(json.loads(json.dumps(dataclasses.asdict(config))))
    assert again == config
    assert hash(again) == hash(config)
    again.train.weight_decay += 1
    assert again != config
    docstring = importlib.import_module(f"configs.{name}").__doc__
    assert "python -m launch." in docstring
    assert "@" not in docstring, "a figure is missing"


def test_latent_sizes_are_those_of_table_2() -> None:
    levels = ("conv2_x", "conv3_x", "conv4_x")
    for name, sizes in {
        "mb_pfm_r18_r34": (50, 100, 200),
        "mb_pfm_r18_r50": (200, 400, 900),
        "mb_pfm_r34_r50": (200, 400, 900),
    }.items():
        assert recipe(name).mapping.latent == dict(zip(levels, sizes, strict=True))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("data.image_size", 100),
        ("data.image_size", 0),
        ("mapping.latent", {}),
        ("mapping.latent", {"conv5_x": 8}),
        ("mapping.latent", {"conv2_x": -8}),
        ("mapping.directions", ("sideways",)),
        ("mapping.directions", ()),
        ("train.sampling", "pixels"),
        ("train.positions", {"conv2_x": 8}),
        ("train.learning_rate", {"conv2_x": 0.0, "conv3_x": 1.0, "conv4_x": 1.0}),
        ("train.schedule", "steep"),
        ("train.warmup", 1.0),
        ("train.beta2", -0.1),
        ("train.precision", "float8"),
        ("scoring.precision", "int8"),
        ("scoring.smoothing", 0.5),
        ("networks.neighbourhood", 2),
        ("networks.neighbourhood", -1),
        ("train.steps", 0),
        ("train.epochs", -1),
        ("train.batch_size", 0),
        ("train.checkpoint_every", 0),
        ("train.weight_decay", -1e-5),
    ],
)
def test_bad_fields_are_named(place: str, value: object) -> None:
    config = Config()
    group, field = place.split(".")
    setattr(getattr(config, group), field, value)
    with pytest.raises(InputError, match=rf"config\.{place}=.*must be|config\.{place}=.*given"):
        validate(config)


def test_misspelt_field_is_an_error() -> None:
    with pytest.raises(AttributeError):
        Config().train.stepz = 3


def test_a_recipe_of_another_version_is_not_completed() -> None:
    values = dataclasses.asdict(Config())
    for changed in ({"precision": "auto"}, {**values["scoring"], "colour": "red"}):
        with pytest.raises(KeyError, match="scoring"):
            from_dict({**values, "scoring": changed})
