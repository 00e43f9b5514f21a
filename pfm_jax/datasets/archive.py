"""Data set folders from a folder, an archive or a download."""

from __future__ import annotations

import hashlib
import lzma
import os
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path

from tqdm import tqdm

from pfm_jax.system import files
from pfm_jax.types import InputError

UNREADABLE = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, OSError, EOFError)


def locate(data_dir: Path | None) -> Path:
    """Folder `data_dir`, unpacked if it is a zip or tar archive. Raises InputError."""
    if data_dir is None:
        raise InputError("data_dir is not set; pass --data_dir=FOLDER that contains the categories")
    return unpack(data_dir) if data_dir.is_file() else data_dir


def download(url: str, sha256: str) -> Path:
    """Downloads a published archive into the cache, once. Raises InputError."""
    target = files.cache_dir() / "downloads" / url.rsplit("/", 1)[1]
    if not target.is_file():
        try:
            files.download(url, sha256, target)
        except OSError as error:
            raise InputError(f"{url}: {error}; download it and set --data_dir to it") from error
    return target


def unpack(archive: Path) -> Path:
    """Unpacks an archive into the cache, once and atomically: a folder of its name.

    Raises InputError.
    """
    stat = archive.stat()
    identity = f"named\0{archive.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}"
    target = files.cache_dir() / "unpacked" / hashlib.sha256(identity.encode()).hexdigest()[:16]
    inner = archive.name.split(".")[0] or "archive"
    if (target / inner).is_dir():
        return target / inner
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, ignore_cleanup_errors=True) as part:
        try:
            _extract(archive, os.path.join(part, inner))
        except UNREADABLE as error:
            reason = "; ".join(str(error).splitlines())
            raise InputError(f"data_dir={archive}: can't be unpacked ({reason})") from error
        try:
            os.replace(part, target)
        except OSError:
            if not (target / inner).is_dir():  # else another run has unpacked it meanwhile
                raise
    return target / inner


def _extract(archive: Path, folder: str) -> None:
    with (
        archive.open("rb") as file,
        tqdm.wrapattr(file, "read", archive.stat().st_size, desc="unpack", disable=None) as stream,
    ):
        if zipfile.is_zipfile(archive):
            with zipfile.ZipFile(stream) as zipped:
                zipped.extractall(folder)
        else:
            with tarfile.open(fileobj=stream, mode="r:*") as tar:
                tar.extractall(folder, filter="data")
