"""Image files below a folder: the one way to walk it, and what it passes over."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pfm_jax.types import InputError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
"""Suffixes of images, in any case."""

HIDDEN, OTHER, OUTPUT = "hidden", "not an image", "in the output folder"
ARCHIVE_LEFTOVERS = "__MACOSX"  # what macOS adds to archives


def image_files(root: Path, passed: Counter[str], outside: Path | None = None) -> list[Path]:
    """Images below a folder, sorted; empty if there is no such folder.

    Enters subfolders, and links to folders unless they lead back up. Adds to `passed`, by reason,
    what it passes over: names that begin with a dot, folders too, files with another suffix than
    `SUFFIXES`, and the folder `outside`. Raises InputError: a folder that can't be read.
    """
    return sorted(_below(root, frozenset(), passed, outside)) if root.is_dir() else []


def _below(
    folder: Path, above: frozenset[str], passed: Counter[str], outside: Path | None
) -> Iterator[Path]:
    real = os.path.realpath(folder)
    if outside and is_below(folder, outside):
        passed[OUTPUT] += 1
        return
    for path in children(folder):
        if is_hidden(path):
            passed[HIDDEN] += 1
        elif path.is_dir():
            if os.path.realpath(path) not in above | {real}:
                yield from _below(path, above | {real}, passed, outside)
        elif path.suffix.lower() in SUFFIXES:
            yield path
        else:
            passed[OTHER] += 1


def is_below(path: Path, folder: Path) -> bool:
    """Whether a file or folder lies in a folder, however both are spelt, or is the folder."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def is_hidden(path: Path) -> bool:
    """Whether a file or folder is passed over for its name."""
    return path.name.startswith(".") or path.name == ARCHIVE_LEFTOVERS


def children(folder: Path) -> list[Path]:
    """Files and folders in a folder, sorted. Raises InputError if it can't be read."""
    try:
        return sorted(folder.iterdir())
    except OSError as error:
        raise InputError(f"{folder}: can't be read ({error.strerror})") from error


def told(where: str | Path, passed: Counter[str]) -> list[str]:
    """One line that tells what was passed over; none if nothing was."""
    if not (total := passed.total()):
        return []
    files = "1 file" if total == 1 else f"{total} files"
    reasons = ", ".join(f"{count} {reason}" for reason, count in passed.items() if count)
    return [f"{where}: {files} passed over: {reasons}"]
