"""Sizes of the cache's parts, and their removal."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path

from pfm_jax.system.files import cache_dir

PARTS = ("compiled", "downloads", "unpacked", "tfds")
"""Subfolders that commands fill, `tfds` those of earlier versions. Weights are not among them: they
may have been put there by hand.
"""

REMOVED = ".removed-"  # begins the name of a part that is being removed


def sizes() -> dict[str, int]:
    """Bytes of each subfolder (or file) of the cache, by name, sorted; empty without a cache."""
    folder = cache_dir()
    return {path.name: _size(path) for path in sorted(folder.glob("*"))}


def clear() -> int:
    """Removes the `PARTS` of the cache and returns the bytes freed. Raises OSError.

    Each part is renamed first, so that no other process finds half of it.
    """
    freed = 0
    for name, size in sizes().items():
        if name not in PARTS and not name.startswith(REMOVED):
            continue
        part = removed = cache_dir() / name
        if not name.startswith(REMOVED):  # else left by a removal that was killed
            removed = cache_dir() / f"{REMOVED}{secrets.token_hex(4)}"
        with contextlib.suppress(FileNotFoundError):  # another process removes it too
            os.replace(part, removed)
            _remove(removed)
            freed += size
    return freed


def _size(path: Path) -> int:
    """Bytes of a file or of all files below a folder; links are not followed."""
    files = [path]
    if _is_folder(path):
        files = [Path(folder, name) for folder, _, names in os.walk(path) for name in names]
    total = 0
    for file in files:
        with contextlib.suppress(FileNotFoundError):
            total += file.lstat().st_size
    return total


def _remove(path: Path) -> None:
    if _is_folder(path):
        shutil.rmtree(path)
    else:
        path.unlink()


def _is_folder(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
