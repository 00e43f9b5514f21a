"""The values of flags, looked at before anything is done with them."""

from typing import TypeVar

from absl import flags
from ml_collections import config_flags

from pfm_jax.config import Config, SweepConfig
from pfm_jax.types import InputError

T = TypeVar("T", Config, SweepConfig)


def recipe(flag: flags.FlagHolder, kind: type[T]) -> T:
    """The value of a `--config` flag. Raises InputError if its file gives none of that kind."""
    try:
        if isinstance(flag.value.name, str) and isinstance(flag.value, kind):
            return flag.value
        reason = f"its get_config() does not return a pfm_jax {kind.__name__}"
    except (OSError, AttributeError) as error:
        reason = str(error).strip().splitlines()[-1].strip()
    raise InputError(f"config={config_flags.get_config_filename(flags.FLAGS[flag.name])}: {reason}")


def whole_numbers(flag: flags.FlagHolder) -> list[int]:
    """The values of a list flag. Raises InputError if one is no whole number."""
    if wrong := [value for value in flag.value if not value.isdecimal()]:
        raise InputError(f"{flag.name}: {wrong[0]!r} is not a whole number; write them as 0,1,2")
    return [int(value) for value in flag.value]
