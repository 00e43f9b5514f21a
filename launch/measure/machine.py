"""The machine's own rate, and medians of turns."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def in_turn(
    contenders: dict[str, Callable[[], Any]], repeats: int, warm_up: int = 1
) -> dict[str, float]:
    """Seconds of each: the median of `repeats` turns; in each turn every contender runs once.

    A contender returns when its result is there.
    """
    for _ in range(warm_up):
        for run in contenders.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, run in contenders.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    return {name: float(np.median(values)) for name, values in seconds.items()}


def matmul() -> tuple[Callable[[], Any], float]:
    """A float32 product of two 2048 x 2048 matrices, and its floating-point operations."""
    a, b = (jax.random.normal(jax.random.key(i), (2048, 2048)) for i in range(2))
    product = jax.jit(jnp.dot)
    return lambda: product(a, b).block_until_ready(), 2 * 2048.0**3


def description() -> dict[str, Any]:
    """Of the machine and the versions."""
    cpu = "unknown"
    if (info := Path("/proc/cpuinfo")).is_file():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].split(":")[1].strip() if names else cpu
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "device": str(jax.devices()[0].device_kind),
        "jax": jax.__version__,
        "python": platform.python_version(),
    }


def peak_kib(pid: int) -> int:
    """The most memory a process has had resident, as far as the system says."""
    try:
        fields = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
    except OSError:
        return 0
    return int(fields.get("VmHWM", "0 kB").split()[0])
