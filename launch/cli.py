"""What all launchers share: bad input is one line and exit code 2, `--help` exits 0."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from typing import TypeVar

from absl import app, flags
from absl import logging as absl_logging
from ml_collections import config_flags

from pfm_jax.config import Config, SweepConfig
from pfm_jax.types import InputError

T = TypeVar("T", Config, SweepConfig)


def _parse(argv: list[str]) -> list[str]:
    try:
        rest: list[str] = flags.FLAGS(argv)
    except Exception as error:  # a recipe is a program, and may fail in any way
        _fail(str(error.args[0] if isinstance(error, KeyError) else error))
    if len(rest) > 1:
        _fail(f"what does {rest[1]!r} mean? options are --name=value; see --help")
    return rest


def _fail(message: str) -> None:
    print("error:", " ".join(message.split()), file=sys.stderr)
    sys.exit(2)


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


def run(main: Callable[[], None]) -> None:
    """Parses the flags and calls `main`."""
    module = sys.modules["__main__"]

    def guarded(_: list[str]) -> None:
        absl_logging.set_verbosity(absl_logging.WARNING)  # of the libraries: Orbax says much
        logging.getLogger("pfm_jax").setLevel(logging.INFO)
        try:
            main()
        except (InputError, OSError) as error:  # OSError: a full disk, a folder not to be written
            _fail(str(error))

    if {"--help", "-h", "-help"} & set(sys.argv[1:]):
        print(module.__doc__, flags.FLAGS.module_help(module), sep="\n")
        sys.exit(0)
    app.run(guarded, flags_parser=_parse)
