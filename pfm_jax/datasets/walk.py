"""Image files below a folder: the one way to walk it, and what it passes over."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pfm_jax.types import InputError

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
"""Suffixes of images, in any case."""

SYSTEM = {
    "__MACOSX",
    "@eaDir",
    "#recycle",
    "$RECYCLE.BIN",
    "System Volume Information",
    "lost+found",
}
"""Folders that systems leave: hidden, though their names don't begin with a dot."""

HIDDEN, OTHER, TWICE = "hidden", "not an image", "a link to a folder that is entered anyway"
IGNORED = "ignore.png"
"""Mask, in the folder of a category, of what to ignore in its images: no image itself."""
MASK = f"the mask {IGNORED}"
OUTPUT = "in the output folder"
PREDICTED = "predict.json"
"""File in each folder that `launch.predict` has written."""


def image_files(root: Path, passed: Counter[str], outside: Path | None = None) -> list[Path]:
    """Images below a folder, sorted; empty if there is no such folder.

    Enters subfolders, then linked folders, each folder once. Adds to `passed`, by reason, what it
    passes over: names that begin with a dot, folders too, those of `SYSTEM`, files with another
    suffix than `SUFFIXES`, `IGNORED`, the folder `outside`, and others that predictions were
    written to. Raises InputError: a folder that can't be read.
    """
    if not is_folder(root):
        return []
    found: list[Path] = []
    entered: set[str] = set()
    left = [root]
    while left:  # linked folders come after those that are there
        links: list[Path] = []
        for folder in left:
            real = os.path.realpath(folder)
            if real in entered or (is_below(root, folder) and entered):
                passed[TWICE] += 1
            else:
                found += _below(folder, passed, outside, links, entered)
        left = links
    return sorted(found)


def _below(
    folder: Path,
    passed: Counter[str],
    outside: Path | None,
    links: list[Path],
    entered: set[str],
) -> Iterator[Path]:
    entered.add(os.path.realpath(folder))
    if (outside and is_below(folder, outside)) or (folder / PREDICTED).is_file():
        passed[OUTPUT] += 1
        return
    for path in children(folder):
        if is_hidden(path):
            passed[HIDDEN] += 1
        elif is_folder(path):
            if path.is_symlink():
                links.append(path)
            else:
                yield from _below(path, passed, outside, links, entered)
        elif path.name == IGNORED:
            passed[MASK] += 1
        elif path.suffix.lower() in SUFFIXES:
            yield path
        else:
            passed[OTHER] += 1


def is_below(path: Path, folder: Path) -> bool:
    """Whether a file or folder lies in a folder, however both are spelt, or is the folder."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def is_hidden(path: Path) -> bool:
    """Whether a file or folder is passed over for its name."""
    return path.name.startswith(".") or path.name in SYSTEM


def is_folder(path: Path) -> bool:
    """Whether a path is a folder. Raises InputError: it can't be told."""
    try:
        return path.is_dir()
    except OSError as error:
        raise InputError(f"{path}: can't be read ({error.strerror})") from error


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
