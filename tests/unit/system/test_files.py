"""Downloads at once, in threads of one process; folders that can't be locked."""

from __future__ import annotations

import errno
import hashlib
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import pytest

from pfm_jax.system import files


def test_threads_download_one_file_at_once(tmp_path: Path) -> None:
    content = bytes(range(256)) * 20_000
    (tmp_path / "source").write_bytes(content)
    target, start = tmp_path / "cache" / "downloads" / "a.zip", Barrier(8)

    def download(_: int) -> bytes:
        start.wait()
        url = (tmp_path / "source").as_uri()
        files.download(url, hashlib.sha256(content).hexdigest(), target)
        return target.read_bytes()

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(download, range(8))) == {content}
    assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [errno.ENOSYS, errno.ENOLCK, errno.EINVAL, errno.ENOTSUP])
def test_a_file_system_without_locks_gets_a_warning(
    error: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As an old NFS answers; the stand-in is for the system call that `filelock` makes."""
    fcntl = pytest.importorskip("fcntl")

    def flock(*_: int) -> None:
        raise OSError(error, os.strerror(error))

    monkeypatch.setattr(fcntl, "flock", flock)
    with files.locked(tmp_path / "run"):
        assert (tmp_path / "run").is_dir()
    assert "can't be locked here" in caplog.text
