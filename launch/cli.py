"""What all launchers share: bad input is one line and exit code 2, `--help` exits 0."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from absl import app, flags
from absl import logging as absl_logging

from launch import processes
from pfm_jax import interrupts
from pfm_jax.types import InputError

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


def run(main: Callable[[], None]) -> None:
    """Parses the flags and calls `main`."""
    module = sys.modules["__main__"]

    def guarded(_: list[str]) -> None:
        absl_logging.set_verbosity(absl_logging.WARNING)  # of the libraries: Orbax says much
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # Orbax: of a torn checkpoint
        logging.getLogger("pfm_jax").setLevel(LOG_LEVEL.value.upper())
        interrupts.exit_cleanly()
        try:
            processes.meet()
            main()
        except (InputError, OSError) as error:  # OSError: a full disk, a folder not to be written
            _fail(str(error))

    if {"--help", "-h", "-help"} & set(sys.argv[1:]):
        defining = module, sys.modules[__name__], processes
        print(module.__doc__, *map(flags.FLAGS.module_help, defining), sep="\n")
        sys.exit(0)
    app.run(guarded, flags_parser=_parse)
