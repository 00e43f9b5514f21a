"""Mirrors of remote workdirs, on fsspec's storage in memory."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import fsspec
import pytest

from pfm_jax.system import mirror
from pfm_jax.types import InputError

URL = "memory://bucket/runs"


@pytest.fixture
def remote() -> fsspec.AbstractFileSystem:
    """Empty storage in memory."""
    storage = fsspec.filesystem("memory")
    storage.store.clear()
    storage.pseudo_dirs[:] = [""]
    return storage


def held(storage: fsspec.AbstractFileSystem) -> dict[str, bytes]:
    found = {path: storage.cat_file(path) for path in storage.find("/bucket/runs")}
    return {path.removeprefix("/bucket/runs/"): content for path, content in found.items()}


def test_what_is_written_comes_back(remote: fsspec.AbstractFileSystem) -> None:
    with mirror.local_folder(URL) as folder:
        (folder / "a" / "checkpoints" / "5").mkdir(parents=True)
        (folder / "a" / "checkpoints" / "5" / "state").write_bytes(b"state")
        (folder / "a" / "log.txt").write_text("one\n")
    assert not folder.exists()
    assert held(remote) == {"a/checkpoints/5/state": b"state", "a/log.txt": b"one\n"}
    with mirror.local_folder(f"{URL}/") as folder:
        with (folder / "a" / "log.txt").open("a") as file:
            file.write("two\n")
        (folder / "a" / "checkpoints" / "5" / "state").unlink()
    assert held(remote) == {"a/log.txt": b"one\ntwo\n"}


def test_files_that_are_not_wanted_stay(remote: fsspec.AbstractFileSystem) -> None:
    """A report's mirror, without checkpoints, and another launch that writes meanwhile."""
    remote.pipe({"/bucket/runs/a/checkpoints/5/state": b"s", "/bucket/runs/a/metrics.json": b"{}"})
    with mirror.local_folder(URL, mirror.without_checkpoints) as folder:
        assert [path.name for path in folder.rglob("*") if path.is_file()] == ["metrics.json"]
        remote.pipe_file("/bucket/runs/b/metrics.json", b"{}")
        (folder / "report.html").write_bytes(b"<p>")
    assert {*held(remote)} == {
        *("a/checkpoints/5/state", "a/metrics.json", "b/metrics.json", "report.html")
    }


def test_uploads_while_the_block_runs_and_in_the_order_of_changes(
    remote: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    names = []
    put = type(remote).put_file
    monkeypatch.setattr(
        type(remote), "put_file", lambda self, a, b: (names.append(Path(b).name), put(self, a, b))
    )
    one = mirror.Mirror(URL, tmp_path, mirror.everything)
    for name in ("z", "m", "a"):  # an earlier file must not wait for a later one
        (tmp_path / name).write_text(name)
        (tmp_path / f".{name}.x.part").write_text("half")
        (tmp_path / f"{name}.orbax-checkpoint-tmp-1").mkdir()
        (tmp_path / f"{name}.orbax-checkpoint-tmp-1" / "state").write_text("half")
    one.upload()
    one.upload()
    assert names == ["z", "m", "a"]
    assert {*held(remote)} == {"z", "m", "a"}


def test_the_folder_is_uploaded_after_a_failure(remote: fsspec.AbstractFileSystem) -> None:
    with pytest.raises(InputError) as failure, mirror.local_folder(URL) as folder:
        (folder / "log.txt").write_text("why")
        raise InputError(f"{folder / 'a'}: holds a run of another kind")
    assert str(failure.value) == f"{URL}/a: holds a run of another kind"
    assert held(remote) == {"log.txt": b"why"}
    with pytest.raises(SystemExit), mirror.local_folder(URL) as folder:
        (folder / "saved").write_text("on SIGTERM")
        sys.exit(0)
    assert {*held(remote)} == {"log.txt", "saved"}


def test_nothing_is_lost_where_the_storage_refuses(
    remote: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("Access Denied")

    with pytest.raises(InputError) as failure, mirror.local_folder(URL) as folder:
        (folder / "scores.csv").write_text("1")
        monkeypatch.setattr(type(remote), "put_file", refuse)
    assert "can't be written (Access Denied); the files are kept in" in str(failure.value)
    assert str(failure.value).endswith(str(folder))
    assert (folder / "scores.csv").read_text() == "1"
    monkeypatch.setattr(type(remote), "pipe_file", refuse)
    entered = False
    with pytest.raises(InputError, match="Access Denied"), mirror.local_folder(URL):
        entered = True
    assert not entered, "refused before an hour of training, not after"


def test_reading_alone_asks_for_no_right_to_write(
    remote: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.pipe_file("/bucket/runs/a/run.json", b"{}")
    for name in ("pipe_file", "put_file", "rm_file"):
        monkeypatch.setattr(type(remote), name, lambda *_: pytest.fail("written"))
    with mirror.local_folder(URL, read_only=True) as folder:
        assert (folder / "a" / "run.json").read_text() == "{}"


def test_a_local_place_is_itself(tmp_path: Path) -> None:
    with mirror.local_folder(str(tmp_path)) as folder:
        assert folder == tmp_path
    assert tmp_path.exists()


def test_an_unknown_storage_is_told() -> None:
    with pytest.raises(InputError, match=r"^nothing://a: can't be used \(.*nothing"):  # noqa: SIM117
        with mirror.local_folder("nothing://a"):
            pass


def test_writing_claims_no_device(tmp_path: Path) -> None:
    """The parent of a sweep must leave a GPU's memory to its jobs."""
    code = f"""
from pathlib import Path
from jax._src import xla_bridge
from pfm_jax.system import files, mirror
with mirror.local_folder({str(tmp_path)!r}) as folder:
    files.write(folder / "sweep.json", b"")
print(xla_bridge.backends_are_initialized())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
    assert (tmp_path / "sweep.json").exists()


def test_a_checkpoint_that_is_removed_while_it_is_uploaded(
    remote: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = type(remote).put_file

    def removed(self: Any, local: str, target: str) -> None:
        if local.endswith("old"):
            Path(local).unlink()
        put(self, local, target)

    monkeypatch.setattr(type(remote), "put_file", removed)
    with mirror.local_folder(URL) as folder:
        (folder / "old").write_text("old")
        (folder / "screw.part2").mkdir()
        (folder / "screw.part2" / "metrics.json").write_text("{}")
    assert not folder.exists()
    assert {*held(remote)} == {"screw.part2/metrics.json"}


def test_a_file_that_another_removes_while_it_is_downloaded(
    remote: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote.pipe({"/bucket/runs/a/failed.json": b"{}", "/bucket/runs/a/metrics.json": b"{}"})
    get = type(remote).get

    def removed(self: Any, paths: list[str], targets: list[str]) -> None:
        if len(paths) == 2:
            self.rm_file("/bucket/runs/a/failed.json")
        get(self, paths, targets)

    monkeypatch.setattr(type(remote), "get", removed)
    with mirror.local_folder(URL, read_only=True) as folder:
        assert (folder / "a" / "metrics.json").read_text() == "{}"


def test_nothing_is_left_behind_where_nothing_could_be_read(
    remote: fsspec.AbstractFileSystem, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError("Access Denied")

    remote.pipe_file("/bucket/runs/a/metrics.json", b"{}")
    monkeypatch.setattr(type(remote), "get", refuse)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(InputError, match="Access Denied"), mirror.local_folder(URL):
        pass
    assert not list(tmp_path.iterdir())
