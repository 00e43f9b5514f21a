"""Archives as they were downloaded (tar of any compression, zip), unpacked once into the cache."""

from __future__ import annotations

import hashlib
import lzma
import os
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from pathlib import Path

from tqdm import tqdm

from pfm_jax.types import InputError

FAULTS = (tarfile.TarError, zipfile.BadZipFile, lzma.LZMAError, zlib.error, OSError, EOFError)


def unpack(archive: Path, cache: Path) -> Path:
    """The folder of an archive's content, made once, whole or not at all. Raises InputError."""
    stat = archive.stat()
    identity = f"{archive.resolve()}\0{stat.st_size}\0{stat.st_mtime_ns}"
    target = cache / "unpacked" / hashlib.sha256(identity.encode()).hexdigest()[:16]
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=target.parent))
    try:
        with (
            archive.open("rb") as file,
            tqdm.wrapattr(file, "read", stat.st_size, desc="unpack", disable=None) as stream,
        ):
            if zipfile.is_zipfile(archive):
                with zipfile.ZipFile(stream) as zipped:
                    zipped.extractall(part)
            else:
                with tarfile.open(fileobj=stream, mode="r:*") as tar:
                    tar.extractall(part, filter="data")
    except FAULTS as error:
        shutil.rmtree(part, ignore_errors=True)
        reason = "; ".join(str(error).splitlines())
        raise InputError(f"data_dir={archive}: can't be unpacked ({reason})") from error
    try:
        os.replace(part, target)
    except OSError:
        shutil.rmtree(part, ignore_errors=True)
        if not target.is_dir():  # else another run has unpacked it meanwhile
            raise
    return target
