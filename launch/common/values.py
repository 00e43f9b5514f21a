"""Checked values of flags."""

from absl import flags

from pfm_jax.types import InputError


def whole_numbers(flag: flags.FlagHolder) -> list[int]:
    """Values of a list flag. Raises InputError if one is not a whole number."""
    if wrong := [value for value in flag.value if not value.isdecimal()]:
        raise InputError(f"{flag.name}: {wrong[0]!r} is not a whole number; write them as 0,1,2")
    return [int(value) for value in flag.value]
