"""Runs `launch.train` with the given flags and prints, as JSON, the programs that it compiled.

`names`: of every program in the order of first use; `misses`: of those, how many the persistent
cache did not have. With `ahead` before the flags, compiles ahead and trains seeds as a group, as on
an accelerator.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import jax

from launch import train
from pfm_jax.system import compilation
from pfm_jax.training import groups, loop

names: list[str] = []
misses: list[str] = []


def finished(event: str, _: float, **about: Any) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        names.append(str(about.get("fun_name")))


def happened(event: str, **_: Any) -> None:
    if event == "/jax/compilation_cache/cache_misses":
        misses.append(event)


if __name__ == "__main__":
    jax.monitoring.register_event_duration_secs_listener(finished)
    jax.monitoring.register_event_listener(happened)
    if sys.argv[1] == "ahead":
        sys.argv.pop(1)
        compilation.pays_ahead = lambda: True
        groups.group_size = loop.group_size = lambda runs, room: max(runs, room)
    try:
        train.entry()
    except SystemExit as ended:
        print(json.dumps({"names": names, "misses": len(misses)}))
        sys.exit(ended.code)
    print(json.dumps({"names": names, "misses": len(misses)}))
