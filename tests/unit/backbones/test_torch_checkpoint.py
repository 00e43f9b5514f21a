"""The restricted reader: real files of torch, hostile pickles, torn files."""

from __future__ import annotations

import io
import os
import pickle
import pickletools
import sys
import types
import zipfile
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from pfm_jax.backbones import torch_checkpoint
from pfm_jax.types import InputError

GOLDENS = Path(__file__).parents[2] / "parity" / "goldens"


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_files_written_by_torch(kind: str) -> None:
    found = torch_checkpoint.read(GOLDENS / f"tiny_{kind}.pth")
    base = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    expected = {
        "contiguous": base,
        "transposed": base.transpose(2, 0, 1),
        "slice": base[1, 1:],
        "parameter": base[0] / 2,
        "half": base[0].astype(np.float16),
        "bfloat16": (base[0] / 3).astype(jnp.bfloat16),
        "double": base[0].astype(np.float64),
        "count": np.array(7),
        "empty": np.zeros((0, 3), np.float32),
    }
    assert set(found) == set(expected)
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)
        assert found[name].dtype == value.dtype, name


def archive(path: Path, data: bytes, **storages: bytes) -> Path:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", data)
        for name, content in storages.items():
            file.writestr(f"archive/data/{name.removeprefix('s')}", content)
    return path


class Call:
    """Pickles as a call of `function`."""

    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


MARK = "touched"


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "payload",
    [
        Call(os.system, f"touch {MARK}"),
        Call(eval, f"open('{MARK}', 'w')"),
        Call(open, MARK, "w"),
        Call(getattr, {}, "clear"),
        {"weight": Call(os.mkdir, MARK)},
        [Call(pickle.loads, pickle.dumps(Call(os.mkdir, MARK)))],
    ],
    ids=["system", "eval", "open", "getattr", "nested", "pickle_in_pickle"],
)
@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_hostile_pickle_is_refused_before_it_runs(
    kind: str, payload: object, protocol: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = pickle.dumps(payload, protocol)
    path = tmp_path / "hostile.pth"
    if kind == "zip":
        archive(path, data)
    else:
        header = [torch_checkpoint.LEGACY_MAGIC, 1001, {"little_endian": True}]
        path.write_bytes(b"".join(pickle.dumps(part, 2) for part in header) + data)
    with pytest.raises(InputError, match="refused: its pickle"):
        torch_checkpoint.read(path)
    assert not (tmp_path / MARK).exists()


class Storage:
    """Stands for a storage of torch: pickles as its persistent id."""

    def __init__(self, kind: str, key: str, numel: int) -> None:
        self.record = ("storage", getattr(sys.modules["torch"], kind), key, "cpu", numel)


class Pickler(pickle.Pickler):
    def persistent_id(self, value: object) -> object:
        return value.record if isinstance(value, Storage) else None


def state_dict(
    monkeypatch: pytest.MonkeyPatch,
    numel: int,
    offset: int,
    size: tuple[int, ...],
    stride: tuple[int, ...],
    nested: tuple[tuple[int, ...], tuple[int, ...]] | None = None,
) -> bytes:
    """A pickle as torch writes it, of one tensor."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    torch.FloatStorage = type("FloatStorage", (), {"__module__": "torch"})

    def _rebuild_tensor_v2() -> None: ...

    _rebuild_tensor_v2.__module__, _rebuild_tensor_v2.__qualname__ = (
        "torch._utils",
        "_rebuild_tensor_v2",
    )
    utils._rebuild_tensor_v2 = _rebuild_tensor_v2
    monkeypatch.setitem(sys.modules, "torch", torch)
    monkeypatch.setitem(sys.modules, "torch._utils", utils)
    buffer = io.BytesIO()
    pickler = Pickler(buffer, 2)
    storage = Storage("FloatStorage", "0", numel)
    tensor = Call(_rebuild_tensor_v2, storage, offset, size, stride, False, {})
    if nested:
        tensor = Call(_rebuild_tensor_v2, tensor, 0, *nested, False, {})
    pickler.dump({"weight": tensor})
    return buffer.getvalue()


def test_handmade_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = state_dict(monkeypatch, 6, 1, (2, 2), (2, 1))
    path = archive(tmp_path / "a.pth", data, s0=np.arange(6, dtype="<f4").tobytes())
    np.testing.assert_array_equal(torch_checkpoint.read(path)["weight"], [[1, 2], [3, 4]])


@pytest.mark.parametrize(
    ("numel", "offset", "size", "stride"),
    [
        (6, 3, (2, 2), (2, 1)),
        (6, -1, (2, 2), (2, 1)),
        (6, 0, (2, 2), (-2, 1)),
        (6, 0, (1 << 40,), (1,)),
        (6, 0, (2, 2), (2,)),
        (7, 0, (2,), (1,)),
        (1 << 50, 0, (2,), (1,)),
    ],
)
def test_lying_shapes_are_refused(numel, offset, size, stride, tmp_path: Path, monkeypatch) -> None:
    data = state_dict(monkeypatch, numel, offset, size, stride)
    path = archive(tmp_path / "a.pth", data, s0=np.arange(6, dtype="<f4").tobytes())
    with pytest.raises(InputError, match="not a readable torch checkpoint"):
        torch_checkpoint.read(path)


def test_a_tensor_is_no_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A view that repeats one number, taken for a storage, would let another view leave it."""
    data = state_dict(monkeypatch, 2, 0, (50,), (0,), nested=((50,), (1,)))
    path = archive(tmp_path / "a.pth", data, s0=np.ones(2, "<f4").tobytes())
    with pytest.raises(InputError, match="storage is not in the file"):
        torch_checkpoint.read(path)


def test_legacy_file_without_its_numbers_is_refused(tmp_path: Path) -> None:
    whole = (GOLDENS / "tiny_legacy.pth").read_bytes()
    parts, stream = [], io.BytesIO(whole)
    for _ in range(4):
        start = stream.tell()
        list(pickletools.genops(stream))
        parts.append(whole[start : stream.tell()])
    path = tmp_path / "empty.pth"
    path.write_bytes(b"".join(parts) + pickle.dumps([], 2))
    with pytest.raises(InputError, match="not those of the tensors"):
        torch_checkpoint.read(path)


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_torn_files_are_refused(kind: str, tmp_path: Path) -> None:
    whole = (GOLDENS / f"tiny_{kind}.pth").read_bytes()
    path = tmp_path / "torn.pth"
    for length in range(0, len(whole), 61):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"torn\.pth"):
            torch_checkpoint.read(path)


@pytest.mark.parametrize("value", [[1, 2], {"weight": 3}, {5: 6}, "text"])
def test_what_is_no_state_dict_is_refused(value: object, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a state dict"):
        torch_checkpoint.read(archive(tmp_path / "a.pth", pickle.dumps(value, 2)))
