"""Medians of interleaved runs, and the machine's rate of matrix products."""

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
from jax.experimental.compilation_cache import compilation_cache
from jax.stages import Compiled, Lowered


def in_turn(
    contenders: dict[str, Callable[[], Any]], repeats: int, warm_up: int = 1
) -> dict[str, float]:
    """Median seconds per contender over `repeats` turns; in each turn, every contender runs once.

    A contender returns when its result is ready.
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


def compiled(lower: Callable[[], Lowered], folder: Path) -> tuple[float, float, Compiled]:
    """Seconds to compile a program, seconds to load it from a persistent cache, and the program.

    `folder`: where the cache is made; must be empty.
    """
    before, seconds = jax.config.jax_compilation_cache_dir, []  # type: ignore[attr-defined]
    try:
        jax.config.update("jax_compilation_cache_dir", str(folder))
        for _ in range(2):
            jax.clear_caches()
            compilation_cache.reset_cache()
            lowered = lower()
            start = time.perf_counter()
            program = lowered.compile()
            seconds.append(time.perf_counter() - start)
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
        compilation_cache.reset_cache()
    return seconds[0], seconds[1], program


def matmul(size: int = 2048, dtype: str = "float32") -> tuple[Callable[[], Any], float]:
    """Product of two square matrices, and its floating-point operations."""
    a, b = (jax.random.normal(jax.random.key(i), (size, size), dtype) for i in range(2))
    product = jax.jit(jnp.dot)
    return lambda: product(a, b).block_until_ready(), 2 * float(size) ** 3


def ratios(
    contenders: dict[str, Callable[[], Any]], repeats: int, operations: int
) -> dict[str, Any]:
    """Compares contenders with each other and with the rate of matrix products.

    Args:
        contenders: name -> function that scores one batch: `ours`, `float32`, `eager`, `tuned`.
        repeats: turns.
        operations: floating-point operations of a batch.
    """
    product, of_product = matmul()
    seconds = in_turn({**contenders, "matmul": product}, repeats, warm_up=2)
    rate = of_product / seconds["matmul"]
    return {
        "seconds": seconds,
        "times_eager": seconds["eager"] / seconds["ours"],
        "times_tuned": seconds["tuned"] / seconds["ours"],
        "gflop": operations / 1e9,
        "matmul_gflops": rate / 1e9,
        "matmul_fraction": operations / seconds["ours"] / rate,
        "float32_times_eager": seconds["eager"] / seconds["float32"],
        "float32_matmul_fraction": operations / seconds["float32"] / rate,
    }


def description() -> dict[str, Any]:
    """Machine and library versions."""
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
    """Peak resident memory of a process, 0 where the system does not report it."""
    try:
        fields = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
        )
    except OSError:
        return 0
    return int(fields.get("VmHWM", "0 kB").split()[0])
