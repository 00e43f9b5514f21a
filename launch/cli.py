"""What all launchers share: bad input is one line and exit code 2, `--help` exits 0."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

import jax
from absl import app, flags
from absl import logging as absl_logging

from pfm_jax import interrupts
from pfm_jax.types import InputError

DISTRIBUTED = flags.DEFINE_list(
    "distributed",
    [],
    "One of several processes: 'auto' on a cluster that jax.distributed knows, else HOST:PORT of "
    "the first process, this one's number, how many there are.",
)
LOG_LEVEL = flags.DEFINE_enum(
    "log_level", "info", ["debug", "info", "warning", "error"], "What is said of what goes on."
)


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


def _meet() -> None:
    """Joins the other processes, if there are to be any."""
    if DISTRIBUTED.value == ["auto"]:
        jax.distributed.initialize()
    elif DISTRIBUTED.value:
        address, *numbers = DISTRIBUTED.value
        if len(numbers) != 2 or not all(number.isdecimal() for number in numbers):
            raise InputError("distributed: must be 'auto' or HOST:PORT,NUMBER,PROCESSES")
        number, processes = map(int, numbers)
        jax.distributed.initialize(address, processes, number)


def run(main: Callable[[], None]) -> None:
    """Parses the flags and calls `main`."""
    module = sys.modules["__main__"]

    def guarded(_: list[str]) -> None:
        absl_logging.set_verbosity(absl_logging.WARNING)  # of the libraries: Orbax says much
        logging.getLogger("pfm_jax").setLevel(LOG_LEVEL.value.upper())
        interrupts.exit_cleanly()
        try:
            _meet()
            main()
        except (InputError, OSError) as error:  # OSError: a full disk, a folder not to be written
            _fail(str(error))

    if {"--help", "-h", "-help"} & set(sys.argv[1:]):
        own, everyone = (flags.FLAGS.module_help(m) for m in (module, sys.modules[__name__]))
        print(module.__doc__, own, everyone, sep="\n")
        sys.exit(0)
    app.run(guarded, flags_parser=_parse)
