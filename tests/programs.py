"""Runs `launch.train` with the given flags and prints, as JSON, the programs that it compiled.

`names`: of every program in the order of first use; `misses`: of those, how many the persistent
cache did not have. With `accelerators=N` before the flags, the CPU passes for N of them: programs
are compiled ahead, seeds train as a group, batches are larger, metrics are the device's. With
`fit IMAGES WEIGHTS` in place of the flags, `pfm.fit` runs.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import jax

import pfm_jax
from launch import train
from pfm_jax.sweeps.plan import replaced
from tests import small_run

names: list[str] = []
misses: list[str] = []


def finished(event: str, _: float, **about: Any) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        names.append(str(about.get("fun_name")))


def happened(event: str, **_: Any) -> None:
    if event == "/jax/compilation_cache/cache_misses":
        misses.append(event)


def run() -> None:
    if sys.argv[1] == "fit":
        changes = {"train.steps": 60, "scoring.memory": True}
        pfm_jax.fit(sys.argv[2], replaced(small_run.get_config(), changes), sys.argv[3])
    else:
        train.entry()


if __name__ == "__main__":
    jax.monitoring.register_event_duration_secs_listener(finished)
    jax.monitoring.register_event_listener(happened)
    if sys.argv[1].startswith("accelerators="):
        jax.config.update("jax_num_cpu_devices", int(sys.argv.pop(1).partition("=")[2]))
        jax.default_backend = lambda: "gpu"
    try:
        run()
    finally:
        print(json.dumps({"names": names, "misses": len(misses)}))
