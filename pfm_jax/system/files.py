"""Cache folder, atomic writes, folder locks and downloads."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import http.client
import logging
import os
import secrets
import socket
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tqdm import tqdm

from pfm_jax.system import devices
from pfm_jax.types import InputError

NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}
"""Errors of `flock` on a file system that doesn't have it."""

log = logging.getLogger(__name__)


def cache_dir() -> Path:
    """Cache folder: `$PFM_JAX_CACHE`, or `pfm_jax` in the user's cache folder."""
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("PFM_JAX_CACHE") or Path(home, "pfm_jax"))


def shown(path: Path) -> str:
    """Path as text, with forward slashes; invalid UTF-8 is escaped."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def write(path: Path, content: bytes) -> None:
    """Writes a file atomically, on the primary process only. Raises InputError on failure."""
    if not devices.is_primary():
        return
    try:
        with _replacing(path) as file:
            file.write(content)
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error.strerror})") from error


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """File beside `path`, which it replaces at the end of the block unless that fails."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")  # unique on all machines
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("xb") as file:
            yield file
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def make(folder: Path) -> None:
    """Creates a folder and its parents if missing. Raises InputError on failure."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: can't be created ({error.strerror})") from error


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Locks a folder for this process (and its peers) for the duration of the block.

    Warns where the file system has no locks (Lustre, some NFS).

    Raises InputError: another process holds the lock, or the folder can't be written.
    """
    make(folder)
    if not devices.is_primary():
        yield
        return
    try:
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise InputError(f"{folder}: can't be written ({error.strerror})") from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 200).decode(errors="replace")
            raise InputError(f"{folder}: in use by process {holder}") from error
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            log.warning("%s: can't be locked here; nothing else may write to it", folder)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()} on {socket.gethostname()}".encode())
        yield
    finally:
        os.close(descriptor)


def download(url: str, sha256: str, target: Path) -> None:
    """Downloads a file atomically and verifies its hash, in hex, or a prefix of it.

    Raises OSError: a network error or a hash mismatch.
    """
    digest = hashlib.sha256()
    try:
        with _replacing(target) as file, urllib.request.urlopen(url, timeout=30) as response:
            total = int(response.headers.get("Content-Length", 0)) or None
            bar = tqdm(desc=target.name, total=total, unit="B", unit_scale=True, disable=None)
            with bar:
                while block := response.read(1 << 20):
                    file.write(block)
                    digest.update(block)
                    bar.update(len(block))
            if not digest.hexdigest().startswith(sha256):
                raise OSError(f"sha256 is {digest.hexdigest()[:16]}..., not {sha256[:16]}...")
    except (http.client.HTTPException, ValueError) as error:
        raise OSError(str(error)) from error
