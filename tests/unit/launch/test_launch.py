"""Packaging and the recipe's flag: what holds for all launchers."""

from __future__ import annotations

import importlib.util
import sys
import tomllib
from pathlib import Path

import pytest

from launch.common import recipe
from pfm_jax.config import Config, SweepConfig
from pfm_jax.types import InputError

ROOT = Path(__file__).parents[3]


def test_every_launcher_is_a_console_script() -> None:
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    names = {path.stem for path in (ROOT / "launch").glob("[!_]*.py")} | {"benchmark"}
    assert scripts.keys() == {f"pfm-{name.replace('_', '-')}" for name in names}
    for target in scripts.values():
        module, function = target.removeprefix("pfm_jax.").split(":")
        spec = importlib.util.find_spec(module)
        assert spec and spec.origin and f"def {function}(" in Path(spec.origin).read_text()


def test_ci_runs_the_test_command_of_the_readme() -> None:
    lines = (ROOT / "README.md").read_text().splitlines()
    (command,) = (line.strip() for line in lines if line.endswith("-m pytest"))
    assert command in (ROOT / ".ci" / "run").read_text()


def parsed(monkeypatch: pytest.MonkeyPatch, name: str, *overrides: str) -> dict:
    monkeypatch.setattr(sys, "argv", ["train", f"--config={name}", *overrides])
    return recipe._Parser().parse(name).to_dict()


def test_fields_have_the_types_of_their_flags(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A whole number in a fractional field takes fractions; tuples stay tuples."""
    (tmp_path / "mine.py").write_text(
        "from pfm_jax.config import Config, DataConfig\n"
        "def get_config(): return Config(data=DataConfig(held_out=0))\n"
    )
    fields = parsed(monkeypatch, str(tmp_path / "mine.py"), "--config.data.held_out=0.5")
    assert type(fields["data"]["held_out"]) is float
    assert fields["mapping"]["directions"] == ("forward", "backward")
    assert set(parsed(monkeypatch, "ablation", "--config.base.train.steps=3")) == {"base"}


@pytest.mark.parametrize(
    ("name", "override", "message"),
    [
        ("quickstart", "--config.train.stepz=3", "config.train.stepz.*did you mean steps?"),
        ("quickstart", "--config.train.positions.conv9=3", "config.train.positions.conv9: "),
        ("quickstart", "--config.seed.more=3", "config.seed.more: unknown field"),
        ("dinov2_vitb14_reg", "--config.mapping.latent.0-3:4-7=9", r"set all levels at once, --c"),
        ("ablation", "--config.train.steps=3", "config.train.steps: unknown field"),
    ],
)
def test_an_unknown_field_is_named(
    name: str, override: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match=message):
        parsed(monkeypatch, name, override)


def test_recipes_by_name() -> None:
    assert recipe.load("quickstart", Config).name == "quickstart"
    with pytest.raises(InputError, match="does not return a pfm_jax SweepConfig"):
        recipe.load("quickstart", SweepConfig)
    with pytest.raises(InputError, match="did you mean mb_pfm_r18_r50"):
        recipe.load("mb_pfm_r18_r5", Config)
