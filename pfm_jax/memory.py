"""How much memory things take, how much there is, and giving it back."""

from __future__ import annotations

import ctypes
import math
import os
from pathlib import Path
from typing import Any

import jax


def tree_bytes(tree: Any) -> int:
    """Of arrays, or of the shapes of arrays that are not there yet."""
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def free_on_host() -> int:
    """Bytes of memory that the system could give now, its file caches included."""
    if (meminfo := Path("/proc/meminfo")).is_file():
        fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
        return 1024 * int(fields["MemAvailable"].split()[0])
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_AVPHYS_PAGES")


def free_on_device() -> int:
    """Bytes that the first device could give now; on a CPU that is the host's memory."""
    stats = jax.local_devices()[0].memory_stats() or {}
    return stats.get("bytes_limit", free_on_host()) - stats.get("bytes_in_use", 0)


def release() -> None:
    """Gives what was freed back to the system; glibc keeps it, and it adds up over phases."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim:
        trim(0)
