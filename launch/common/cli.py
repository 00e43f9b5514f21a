"""Shared behaviour of all launchers: `--help` exits 0; bad input prints what is wrong, exits 2."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable

from absl import app, flags
from absl import logging as absl_logging

from pfm_jax.system import compilation, interrupts
from pfm_jax.types import InputError

from . import processes

LOG_LEVEL = flags.DEFINE_enum(
    "log_level", "info", ["debug", "info", "warning", "error"], "Logging verbosity."
)
COMPILATION_CACHE = flags.DEFINE_bool(
    "compilation_cache",
    True,
    "Keeps compiled programs in the cache folder, for the next launch.",
)


def _parse(argv: list[str]) -> list[str]:
    try:
        rest: list[str] = flags.FLAGS(argv)
    except Exception as error:  # ml_collections raises errors of many kinds
        cause = error.__context__  # absl wraps the error of a parser
        told = cause if isinstance(cause, InputError) else error
        _fail(str(told.args[0] if isinstance(told, KeyError) else told))
    if len(rest) > 1:
        _fail(f"unexpected argument {rest[1]!r}; flags are --name=value (see --help)")
    return rest


def _fail(message: str) -> None:
    lines = (" ".join(line.split()) for line in message.splitlines())
    print("error:", "\n".join(lines), file=sys.stderr)
    sys.exit(2)


def _is_news(record: logging.LogRecord) -> bool:
    """Whether a message is not of an error that Orbax logs in a thread and then raises."""
    return not (record.exc_info and "orbax" in record.pathname)


def run(main: Callable[[], None]) -> None:
    """Parses the flags and calls `main`, a function of the launcher."""
    launcher = sys.modules[main.__module__]

    def guarded(_: list[str]) -> None:
        absl_logging.set_verbosity(absl_logging.WARNING)  # Orbax is talkative
        logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # Orbax, on a torn checkpoint
        absl_logging.get_absl_logger().addFilter(_is_news)
        logging.getLogger("pfm_jax").setLevel(LOG_LEVEL.value.upper())
        interrupts.exit_cleanly()
        try:
            processes.meet()
            if COMPILATION_CACHE.value:
                compilation.keep_programs()
            main()
        except (InputError, OSError) as error:  # OSError: a full disk, a read-only folder
            _fail(str(error))

    if {"--help", "-h", "-help"} & set(sys.argv[1:]):
        modules = launcher, sys.modules[__name__], processes
        print(launcher.__doc__, *map(flags.FLAGS.module_help, modules), sep="\n")
        sys.exit(0)
    app.run(guarded, flags_parser=_parse)


def command(launcher: str) -> list[str]:
    """Start of the command line of another launcher, from a checkout or an installed package."""
    package = __name__.rpartition(".common.")[0]
    return [sys.executable, "-m", f"{package}.{launcher}"]
