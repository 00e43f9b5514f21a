"""Compiled programs: kept on disk for the next process, and compiled before they are needed."""

from __future__ import annotations

import hashlib
import logging
import platform
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import jax
from filelock import FileLock, Timeout
from jax.experimental.compilation_cache import compilation_cache
from jax.stages import Lowered
from tqdm import tqdm

from pfm_jax.system.files import cache_dir

MAX_BYTES = 2**32
"""Size above which the programs that were used least recently are deleted."""

log = logging.getLogger(__name__)


def keep_programs() -> None:
    """Turns on JAX's persistent compilation cache, in `compiled` of the cache folder.

    Keeps every program, however small or quick to compile. Does nothing where JAX has a folder
    already (`$JAX_COMPILATION_CACHE_DIR`).
    """
    if jax.config.jax_compilation_cache_dir:  # type: ignore[attr-defined]
        return
    folder = cache_dir() / "compiled" / _cpu()
    _delete_torn(folder)
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    compilation_cache.reset_cache()  # else what was compiled before has settled it


def _delete_torn(folder: Path) -> None:
    """Deletes programs that a killed process or a full disk left half-written.

    JAX writes a program's time of last use after it, and without one can add no others: it warns at
    each.
    """
    if not folder.is_dir():
        return
    try:
        with FileLock(folder / ".lockfile", timeout=10):  # JAX's own
            for program in folder.glob("*-cache"):
                if not program.with_name(program.name.removesuffix("-cache") + "-atime").exists():
                    program.unlink()
    except (OSError, Timeout) as error:
        log.info("compiled programs were not looked through: %s", error)


def _cpu() -> str:
    """Name of this machine's instruction set: home folders are shared by unlike machines."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.machine()}_{hashlib.sha256(flags.encode()).hexdigest()[:8]}"


@contextmanager
def ahead(programs: Iterable[Callable[[], Lowered]]) -> Iterator[None]:
    """Lowers and compiles programs in threads during the block, whose end waits for them.

    They are found in the persistent cache when they are called. Does nothing without one, for
    several processes, and on a CPU, whose cores have enough to do.
    """
    kept = jax.config.jax_compilation_cache_dir  # type: ignore[attr-defined]
    if not kept or jax.process_count() > 1 or jax.default_backend() == "cpu":
        yield
        return
    with ThreadPoolExecutor() as pool:
        waiting = [pool.submit(lambda lower: lower().compile(), lower) for lower in programs]
        yield
        for one in tqdm(waiting, "compiling", unit="program", disable=None):
            if error := one.exception():  # the call itself will tell, if it fails too
                log.warning("a program was not compiled ahead: %s", error)
