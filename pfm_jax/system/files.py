"""Cache folder, atomic writes, folder locks and downloads."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import logging
import os
import secrets
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout
from tqdm import tqdm

from pfm_jax.system import devices
from pfm_jax.types import InputError

NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK, errno.EINVAL}
"""Errors of a lock on a file system that doesn't have it."""

log = logging.getLogger(__name__)


def cache_dir() -> Path:
    """Cache folder: `$PFM_JAX_CACHE`, or `pfm_jax` in the user's cache folder.

    Raises InputError: the user has no home folder, as in some containers.
    """
    own, users = os.environ.get("PFM_JAX_CACHE"), os.environ.get("XDG_CACHE_HOME")
    place = os.path.expanduser(own or os.path.join(users or "~/.cache", "pfm_jax"))
    if place.startswith("~"):
        raise InputError("no home folder: set PFM_JAX_CACHE to a folder for the cache")
    return Path(place)


def shown(path: Path) -> str:
    """Path as text, with forward slashes; invalid UTF-8 is escaped."""
    return os.fsencode(path.as_posix()).decode("utf-8", "backslashreplace")


def write(path: Path, content: bytes) -> None:
    """Writes a file atomically, on the primary process only. Raises InputError on failure."""
    if not devices.is_primary():
        return
    with replacing(path) as file:
        file.write(content)


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """File that becomes `path` at the end of the block. Raises InputError on failure."""
    try:
        with _replacing(path) as file:
            yield file
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error.strerror})") from error


@contextlib.contextmanager
def checked(path: Path) -> Iterator[Path]:
    """Path of a file beside `path` that becomes it at the end of the block, unless that raises."""
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")  # unique on all machines
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


def append(path: Path, content: bytes) -> None:
    """Appends to a file, durably. Raises InputError on failure."""
    try:
        with path.open("ab") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(f"{path}: can't be written ({error.strerror})") from error


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """File beside `path`, which it replaces at the end of the block unless that fails."""
    with checked(path) as part, part.open("xb") as file:
        yield file


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
    # Of the process, not of a thread: the background releases what the main thread acquired.
    lock = FileLock(folder / "lock", blocking=False, thread_local=False, fallback_to_soft=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise InputError(f"{folder}: in use by another process") from error
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise InputError(f"{folder}: can't be written ({error.strerror})") from error
        log.warning("%s: can't be locked here; nothing else may write to it", folder)
    try:
        yield
    finally:
        lock.release()


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
