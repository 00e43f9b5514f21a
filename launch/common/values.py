"""Checked values of flags."""

from absl import flags

from pfm_jax.types import InputError


def whole_numbers(flag: flags.FlagHolder) -> list[int]:
    """Whole numbers of a list flag. Raises InputError."""
    if wrong := [value for value in flag.value if not value.isdecimal()]:
        raise InputError(f"{flag.name}: {wrong[0]!r} is not a whole number; expected e.g. 0,1,2")
    return [int(value) for value in flag.value]
