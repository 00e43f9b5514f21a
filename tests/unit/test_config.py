"""Recipes: every one is found, valid, survives JSON, hashes by value, cannot be changed; every bad
field is named.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
from pathlib import Path

import pytest

from pfm_jax import backbones
from pfm_jax.config import PARTS, Config, SweepConfig, TrainConfig, from_dict, to_dict
from pfm_jax.recipes import load_recipe, validate
from pfm_jax.sweeps.plan import replaced
from pfm_jax.types import InputError

FOLDER = Path(__file__).parents[2] / "configs"
RECIPES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem[0] != "_")


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
    assert again == config == from_dict(to_dict(config))
    assert hash(again) == hash(config)
    assert replaced(again, {"train.weight_decay": again.train.weight_decay + 1}) != config
    docstring = importlib.import_module(f"configs.{name}").__doc__
    assert "python -m launch." in docstring
    assert "@" not in docstring, "a figure is missing"


def test_latent_sizes_are_those_of_table_2() -> None:
    """The default's levels between conv3_x and conv4_x have that of conv3_x."""
    paper = ("conv2_x", "conv3_x", "conv4_x")
    default = ("conv2_x", "conv3_x>conv4_x", "conv4_x<conv3_x", "conv4_x>conv4_x")
    for name, levels, sizes in (
        ("mb_pfm_r18_r34", default, (50, 100, 100, 200)),
        ("mb_pfm_r18_r50", default, (200, 400, 400, 900)),
        ("mb_pfm_r34_r50", paper, (200, 400, 900)),
    ):
        assert recipe(name).mapping.latent == dict(zip(levels, sizes, strict=True))
        assert recipe(name).mapping.directions == ("forward", "backward")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("data.image_size", 100),
        ("data.image_size", 0),
        ("mapping.latent", {}),
        ("mapping.latent", {"conv5_x": 8}),
        ("mapping.latent", {"conv2_x": -8}),
        ("mapping.latent", {4: 8}),
        ("mapping.latent", {"conv2_x:": 8}),
        ("networks.source", "resnet19"),
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
        ("scoring.relative", {"conv2_x": 0.0}),
        ("scoring.relative", {"conv2x": 1.5}),
        ("scoring.weights", {"memmory": 4.0}),
        ("train.positions", {**TrainConfig().positions, "conv3_x>conv5x": 8}),
        ("scoring.fusion", "harmonic"),
        ("scoring.weights", {"conv2_x": -1.0}),
        ("scoring.sharpness", float("inf")),
        ("scoring.smoothing", 0.5),
        ("networks.neighbourhood", 2),
        ("networks.neighbourhood", -1),
        ("train.steps", 0),
        ("train.epochs", -1),
        ("train.batch_size", 0),
        ("train.checkpoint_every", 0),
        ("train.checkpoint_seconds", -1.0),
        ("train.weight_decay", -1e-5),
    ],
)
def test_bad_fields_are_named(place: str, value: object) -> None:
    config = replaced(Config(), {place: value})
    with pytest.raises(
        InputError, match=rf"config\.{place}=.*must be|config\.{place}=.*given|config\.{place}: "
    ):
        validate(config)


def test_a_memory_needs_a_geometric_mean() -> None:
    config = replaced(Config(), {"scoring.fusion": "arithmetic"})
    with pytest.raises(InputError, match=r"config\.scoring\.memory=True: must be False with an"):
        validate(config)
    validate(replaced(config, {"scoring.memory": False}))


def test_misspelt_field_is_an_error() -> None:
    for field in ("train.stepz", "trian.steps", "stepz"):
        with pytest.raises(InputError, match=rf"config\.{field}: unknown field"):
            replaced(Config(), {field: 3})


@pytest.mark.parametrize("part", ["", *PARTS])
def test_a_config_cannot_be_changed(part: str) -> None:
    config = Config()
    one = getattr(config, part) if part else config
    before = to_dict(config)
    for field in dataclasses.fields(one):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(one, field.name, getattr(one, field.name))
        with pytest.raises(dataclasses.FrozenInstanceError):
            delattr(one, field.name)
    with pytest.raises((AttributeError, TypeError)):
        one.colour = "red"
    assert to_dict(config) == before


def test_a_changed_copy_leaves_the_config_as_it_was() -> None:
    config = Config()
    changed = replaced(config, {"train.steps": 7, "seed": 3})
    assert (changed.train.steps, changed.seed) == (7, 3)
    assert config == Config() != changed
    assert hash(config) == hash(Config()) != hash(changed)


@pytest.mark.parametrize("name", RECIPES)
def test_recipes_are_found_by_name_and_by_path(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = importlib.import_module(f"configs.{name}").get_config()
    assert load_recipe(str(FOLDER / f"{name}.py")) == expected
    own = tmp_path / f"my_{name}.py"
    own.write_text((FOLDER / f"{name}.py").read_text())
    assert load_recipe(str(own)) == expected
    monkeypatch.chdir(tmp_path)  # a name is good anywhere
    assert load_recipe(name) == expected
    assert load_recipe(own.name) == expected


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("mb_pfm_r18_r5", "no such file, and no recipe of that name; did you mean mb_pfm_r18_r50"),
        ("zebra", "no such file, and no recipe of that name; recipes are ablation, .*sensitivity"),
        ("__init__", "no such file, and no recipe of that name"),
        ("missing/zebra.py", "no such file, and no recipe of that name"),
        ("missing/mb_pfm_r18_r50.py", "no such file, and no recipe of that name"),
        ("", "no such file, and no recipe of that name"),
    ],
)
def test_a_recipe_that_is_not_there_is_refused(name: str, reason: str) -> None:
    with pytest.raises(InputError, match=f"config={name}: {reason}"):
        load_recipe(name)


@pytest.mark.parametrize(
    ("file", "content", "reason"),
    [
        ("a.py", "def get_config(:", "invalid syntax"),
        ("a.py", "x = 1", "no attribute 'get_config'"),
        ("a.py", "def get_config():\n    raise RuntimeError('two\\nlines')", "lines"),
        ("a.py", "def get_config():\n    raise RuntimeError", "RuntimeError"),
        ("a.py", "def get_config():\n    return {}", "returns no pfm_jax Config"),
        ("a.py", "import no_such_module", "No module named 'no_such_module'"),
        ("a.json", "{}", "not a Python file"),
        ("a.py", "\0", "null bytes"),
    ],
)
def test_a_file_that_gives_no_recipe_is_refused(
    file: str, content: str, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / file
    path.write_text(content)
    with pytest.raises(InputError) as caught:
        load_recipe(str(path))
    assert str(caught.value).startswith(f"config={path}: ")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_recipe_of_another_version_is_not_completed() -> None:
    values = dataclasses.asdict(Config())
    for changed in ({"precision": "auto"}, {**values["scoring"], "colour": "red"}):
        with pytest.raises(KeyError, match="scoring"):
            from_dict({**values, "scoring": changed})
