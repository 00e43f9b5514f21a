"""Runs `launch.train` with the given flags and prints, as JSON, the programs that it compiled.

`names`: of every program in the order of first use; `misses`: of those, how many the persistent
cache did not have. With `accelerator` before the flags, the CPU passes for one: programs are
compiled ahead, seeds train as a group, batches are larger, metrics are the device's.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import jax

from launch import train

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
    if sys.argv[1] == "accelerator":
        sys.argv.pop(1)
        jax.default_backend = lambda: "gpu"
    try:
        train.entry()
    except SystemExit as ended:
        print(json.dumps({"names": names, "misses": len(misses)}))
        sys.exit(ended.code)
    print(json.dumps({"names": names, "misses": len(misses)}))
