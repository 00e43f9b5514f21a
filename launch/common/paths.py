"""Flags that are paths: `~` is the home folder, also where no shell has expanded it."""

import os
from typing import Any

from absl import flags

flags.disclaim_key_flags()  # a path flag belongs to the launcher that defines it


class _Parser(flags.ArgumentParser):
    syntactic_help = "a path"

    def parse(self, argument: str) -> str:
        return os.path.expanduser(argument)

    def flag_type(self) -> str:
        return "path"


def define(name: str, default: str | None, help_string: str, **options: Any) -> flags.FlagHolder:
    """Defines a flag whose value is a path, a glob or a URL; options as `flags.DEFINE_string`."""
    serializer: flags.ArgumentSerializer[str] = flags.ArgumentSerializer()
    return flags.DEFINE(_Parser(), name, default, help_string, serializer=serializer, **options)
