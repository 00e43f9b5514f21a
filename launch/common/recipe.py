"""The `--config` flag: a recipe by name or path, whose fields other flags override."""

from __future__ import annotations

import dataclasses
import difflib
import re
import sys
import typing
from typing import Any, TypeVar

from absl import flags
from ml_collections import ConfigDict, config_flags

from pfm_jax.config import Config, SweepConfig, from_dict
from pfm_jax.recipes import load_recipe
from pfm_jax.types import InputError

flags.disclaim_key_flags()  # `--config` belongs to the launcher that calls `define`

T = TypeVar("T", Config, SweepConfig)


class _Parser(flags.ArgumentParser):
    """Loads a recipe. The flag holds its overridable fields, as recipes themselves are frozen."""

    recipe: Config | SweepConfig

    def parse(self, argument: str) -> ConfigDict:
        self.recipe = load_recipe(argument)
        if isinstance(self.recipe, SweepConfig):
            fields = {"base": _fields(self.recipe.base)}
        else:
            fields = _fields(self.recipe)
        for override in sys.argv[1:]:
            if found := re.match(r"--?(?:no)?config\.([^=]+)", override):
                _check_exists(found[1], fields)
        return ConfigDict(fields).lock()

    def flag_type(self) -> str:
        return "recipe"


PARSER = _Parser()


def define(help_string: str) -> flags.FlagHolder:
    """Defines `--config`, required, and `--config.FIELD` for every field of its recipe."""
    holder = config_flags.DEFINE_config_file("config", help_string=help_string)
    flags.FLAGS["config"].parser = PARSER
    flags.mark_flag_as_required("config")
    return holder


def value(flag: flags.FlagHolder, kind: type[T]) -> T:
    """Recipe of a `--config` flag, with its overridden fields.

    Raises:
        InputError: a recipe of another kind.
    """
    name, fields = config_flags.get_config_filename(flags.FLAGS[flag.name]), flag.value.to_dict()
    recipe = _checked(PARSER.recipe, name, kind)
    try:
        if isinstance(recipe, SweepConfig):
            return dataclasses.replace(recipe, base=from_dict(fields["base"]))
        return from_dict(fields)
    except KeyError as error:
        raise InputError("config.baseline.method: fixed; take the recipe of that method") from error


def load(name: str, kind: type[T]) -> T:
    """Loads a recipe by name or path. Raises InputError if it is of another kind."""
    return _checked(load_recipe(name), name, kind)


def _checked(recipe: Config | SweepConfig, name: str, kind: type[T]) -> T:
    if not isinstance(recipe, kind):
        raise InputError(
            f"config={name}: its get_config() does not return a pfm_jax {kind.__name__}"
        )
    return recipe


def _fields(part: Any) -> dict[str, Any]:
    """Fields of a recipe, with the types of their flags."""
    types, found = typing.get_type_hints(type(part)), {}
    for name, kind in types.items():
        found[name] = field = getattr(part, name)
        if dataclasses.is_dataclass(field):
            found[name] = _fields(field)
        elif kind is float:
            found[name] = _as_float(field)
        elif kind == dict[str, float]:
            found[name] = {key: _as_float(number) for key, number in field.items()}
    return found


def _check_exists(place: str, fields: Any) -> None:
    for name in place.split("."):
        if not isinstance(fields, dict) or name not in fields:
            near = difflib.get_close_matches(name, fields, 1) if isinstance(fields, dict) else []
            hint = f"; did you mean {near[0]}?" if near else ""
            raise InputError(f"config.{place}: unknown field{hint}")
        fields = fields[name]
        if not name.isidentifier():
            whole = place.removesuffix(f".{name}")
            all_levels = f"--config.{whole}=\"{{'{name}': VALUE}}\""
            raise InputError(f"config.{place}: set all levels at once, {all_levels}")


def _as_float(number: Any) -> Any:
    return float(number) if type(number) is int else number
