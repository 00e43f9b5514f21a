"""Workdirs in object storage: a local folder that mirrors the one at `gs://` or `s3://`."""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import fsspec

from pfm_jax.system import devices, interrupts
from pfm_jax.types import InputError

SYNC_SECONDS = 10.0
"""Pause between two uploads of what has changed."""

UNFINISHED_FILE, UNFINISHED_FOLDER = ".part", ".orbax-checkpoint-tmp"
"""End and part of the name of what is being written; it is renamed when complete."""

PROBE = ".writable-"
"""Begins the name of an object that is written and removed to see whether that is allowed."""

ATTEMPTS = 3
"""Of a download, while others write."""

log = logging.getLogger(__name__)

Stamp = tuple[int, int]  # modification time in nanoseconds, size in bytes


def everything(name: str) -> bool:
    """Selects all files of a workdir."""
    return True


def nothing(name: str) -> bool:
    """Selects no file."""
    return False


def without_checkpoints(name: str) -> bool:
    """Selects the files of a workdir, relative to it, that an evaluation or a report reads."""
    return "/checkpoints/" not in f"/{name}"


def is_remote(place: str | Path) -> bool:
    """Whether a place is a URL."""
    return "://" in str(place)


def absolute(place: str) -> str:
    """The place as another working folder knows it."""
    return place if is_remote(place) else os.path.abspath(place)


class Mirror:
    """A local folder and the remote one that it mirrors. Raises InputError if that can't be used.

    Only files that `wanted` selects, by path relative to the folder, are downloaded. Uploads leave
    alone what this mirror has neither downloaded nor written, so that several mirrors may share one
    remote folder if each writes files of its own.
    """

    def __init__(self, url: str, folder: Path, wanted: Callable[[str], bool]) -> None:
        self.url, self.folder, self.wanted = url.rstrip("/"), folder, wanted
        self._alike: dict[str, Stamp] = {}  # files that were the same on both sides
        with self._told("can't be used"):
            self._remote, self._root = fsspec.core.url_to_fs(self.url)

    def check_writable(self) -> None:
        """Writes an empty object, of a name of its own, and removes it."""
        with self._told("can't be written"):
            name = f"{PROBE}{secrets.token_hex(4)}"
            self._remote.pipe_file(f"{self._root}/{name}", b"")
            self._remove(name)

    def download(self) -> None:
        """Downloads the wanted files."""
        with self._told("can't be read"):
            for _ in range(ATTEMPTS - 1):
                with contextlib.suppress(FileNotFoundError):  # removed since it was listed
                    return self._download()
            self._download()

    def changed(self) -> dict[str, Stamp]:
        """Files that differ from what is remote, in the order in which they were changed."""
        now = _files(self.folder)
        ordered = sorted(now.items(), key=lambda item: item[1])
        return {name: stamp for name, stamp in ordered if self._alike.get(name) != stamp}

    def upload(self) -> None:
        """Uploads what has changed, in order, then removes what is gone here.

        Killed in between, it leaves what an earlier kill of the run itself would have left.
        """
        with self._told("can't be written"):
            for name, stamp in self.changed().items():
                if self._upload(name):
                    self._alike[name] = stamp
            for name in self._alike.keys() - _files(self.folder).keys():
                self._remove(name)
                del self._alike[name]

    def _download(self) -> None:
        self._remote.invalidate_cache()  # others may have written since
        try:
            found = self._remote.find(self._root)
        except FileNotFoundError:  # nothing has been written there yet
            found = []
        paths = {path[len(self._root) :].lstrip("/"): path for path in found}
        names = [name for name in paths if self._is_wanted(name)]
        targets = [self.folder / name for name in names]
        self._remote.get([paths[name] for name in names], list(map(str, targets)))
        self._alike |= {name: _stamp(path) for name, path in zip(names, targets, strict=True)}

    def _is_wanted(self, name: str) -> bool:
        is_file = name and not name.endswith("/")  # some tools leave empty objects as folders
        return bool(is_file) and not name.startswith(PROBE) and self.wanted(name)

    def _upload(self, name: str) -> bool:
        """Whether the file was there to be uploaded: an old checkpoint may have been removed."""
        try:
            self._remote.put_file(str(self.folder / name), f"{self._root}/{name}")
        except FileNotFoundError:
            if (self.folder / name).exists():
                raise
            return False
        return True

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._remote.rm_file(f"{self._root}/{name}")

    @contextlib.contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each storage has errors of its own
            reason = " ".join(str(error).split()) or type(error).__name__
            raise InputError(f"{self.url}: {what} ({reason})") from error


@contextlib.contextmanager
def local_folder(
    place: str | Path, wanted: Callable[[str], bool] = everything, read_only: bool = False
) -> Iterator[Path]:
    """Local folder for a workdir that may be remote.

    A local `place` stands for itself. A remote one (`gs://`, `s3://` or another object store that
    fsspec knows) is mirrored in a temporary folder: the `wanted` files are downloaded and, unless
    `read_only`, what changes is uploaded every `SYNC_SECONDS` and at the end of the block, also of
    one that fails.

    Raises InputError: the remote folder can't be used, or there are several processes; at the end,
    that it can't be written: the temporary folder is kept then.
    """
    if not is_remote(place):
        yield Path(place)
        return
    if devices.process_count() > 1:
        raise InputError(f"{place}: several processes need a workdir on a file system they share")
    folder = Path(tempfile.mkdtemp(prefix="pfm_jax_"))
    try:
        mirror = Mirror(str(place), folder, wanted)
        if not read_only:
            mirror.check_writable()
        mirror.download()
    except BaseException:
        shutil.rmtree(folder)
        raise
    try:
        with contextlib.nullcontext() if read_only else _uploaded(mirror):
            yield folder
    finally:
        if read_only or not mirror.changed():
            shutil.rmtree(folder)


@contextlib.contextmanager
def _uploaded(mirror: Mirror) -> Iterator[None]:
    """Uploads every `SYNC_SECONDS` and at the end of the block."""
    log.info("%s: object storage has no locks; nothing else may write to its runs", mirror.url)
    done = threading.Event()
    syncing = threading.Thread(target=_sync, args=(mirror, done), daemon=True)
    syncing.start()
    try:
        yield
    except InputError as error:  # names files by where the user knows them
        raise InputError(str(error).replace(str(mirror.folder), mirror.url)) from error
    finally:
        with interrupts.deferred():  # a second SIGTERM must not end the last upload
            done.set()
            syncing.join()
            try:
                mirror.upload()
            except InputError as error:
                kept = f"; the files are kept in {mirror.folder}" if mirror.changed() else ""
                raise InputError(f"{error}{kept}") from error


def _sync(mirror: Mirror, done: threading.Event) -> None:
    while not done.wait(SYNC_SECONDS):
        try:
            mirror.upload()
        except InputError as error:
            log.warning("%s; tried again in %g s", error, SYNC_SECONDS)


def _files(folder: Path) -> dict[str, Stamp]:
    """Stamp of each complete file below a folder, by relative path."""

    def failed(error: OSError) -> None:
        if not isinstance(error, FileNotFoundError):  # removed or renamed meanwhile
            raise error

    found = {}
    for place, _, names in os.walk(folder, onerror=failed):
        inside = Path(place).relative_to(folder)
        if UNFINISHED_FOLDER in inside.as_posix():
            continue
        for name in names:
            if name != "lock" and not name.endswith(UNFINISHED_FILE):
                with contextlib.suppress(FileNotFoundError):
                    found[(inside / name).as_posix()] = _stamp(Path(place, name))
    return found


def _stamp(path: Path) -> Stamp:
    status = path.stat()
    return status.st_mtime_ns, status.st_size
