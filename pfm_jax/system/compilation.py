"""Compiled programs, kept on disk for the next process."""

from __future__ import annotations

import hashlib
import platform
from pathlib import Path

import jax
from jax.experimental.compilation_cache import compilation_cache

from pfm_jax.system.files import cache_dir

MAX_BYTES = 2**32
"""Size above which the programs that were used least recently are deleted."""


def keep_programs() -> None:
    """Turns on JAX's persistent compilation cache, in `compiled` of the cache folder.

    Keeps every program, however small or quick to compile. Does nothing where JAX has a folder
    already (`$JAX_COMPILATION_CACHE_DIR`).
    """
    if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return
    jax.config.update("jax_compilation_cache_dir", str(cache_dir() / "compiled" / _cpu()))
    jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    compilation_cache.reset_cache()  # else what was compiled before has settled it


def _cpu() -> str:
    """Name of this machine's instruction set: home folders are shared by unlike machines."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()}_{hashlib.sha256(flags.encode()).hexdigest()[:8]}"
