"""Where files go, and how they get there."""

from __future__ import annotations

import os
from pathlib import Path

from pfm_jax.types import InputError


def cache_dir() -> Path:
    """`$PFM_JAX_CACHE`, or `pfm_jax` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("PFM_JAX_CACHE") or Path(home) / "pfm_jax")


def write(path: Path, content: bytes) -> None:
    """Writes a file whole or not at all. Raises InputError if it can't be written."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        part.write_bytes(content)
        os.replace(part, path)
    except OSError as error:
        part.unlink(missing_ok=True)
        raise InputError(f"{path}: can't be written ({error.strerror})") from error
