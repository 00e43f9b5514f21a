"""Safe reader of torch checkpoints (`.pth`, `.pt`) that needs no torch and builds tensors only.

A pickle is a program. Its opcodes are scanned before it runs: a file that names any callable
outside `_ALLOWED`, or names one in a way that can't be checked statically, is refused.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any, BinaryIO

import jax.numpy as jnp
import numpy as np

from pfm_jax.types import InputError

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C

_DTYPES = {
    "FloatStorage": np.dtype("<f4"),
    "DoubleStorage": np.dtype("<f8"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(jnp.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("<i1"),
    "ByteStorage": np.dtype("<u1"),
    "BoolStorage": np.dtype("?"),
}
_ALLOWED = {
    "collections OrderedDict",
    "torch._utils _rebuild_tensor",
    "torch._utils _rebuild_tensor_v2",
    "torch._utils _rebuild_parameter",
    *(f"torch {name}" for name in _DTYPES),
}
_UNCHECKABLE_OPCODES = {"STACK_GLOBAL", "INST", "EXT1", "EXT2", "EXT4"}


def read(path: Path) -> dict[str, np.ndarray]:
    """Tensors of a state dict in torch's zip or pre-1.6 format, bare or under `state_dict`.

    Raises InputError: another kind of file, a truncated one, or a pickle that does more.
    """
    try:
        state = _read_zip(path) if zipfile.is_zipfile(path) else _read_legacy(path)
    except InputError:
        raise
    except Exception as error:  # a broken or hostile pickle can raise anything
        raise InputError(f"{path}: not a readable torch checkpoint ({error!r})") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict):
        raise InputError(f"{path}: contains a {type(state).__name__}, not a state dict")
    odd = [str(k) for k, v in state.items() if not (isinstance(k, str) and type(v) is np.ndarray)]
    if odd:
        raise InputError(f"{path}: not a state dict; not named tensors: {', '.join(odd[:5])}")
    return state


def _refuse_callables(stream: BinaryIO, path: Path) -> None:
    """Rejects a pickle with disallowed callables, without running it; rewinds the stream."""
    start = stream.tell()
    for opcode, argument, _ in pickletools.genops(stream):
        named = opcode.name == "GLOBAL" and argument not in _ALLOWED
        if named or opcode.name in _UNCHECKABLE_OPCODES:
            what = f"names {argument!r}" if named else f"uses the opcode {opcode.name}"
            raise InputError(f"{path}: refused: its pickle {what}, which no state dict needs")
    stream.seek(start)


class _Unpickler(pickle.Unpickler):
    """Unpickler limited to `_ALLOWED`; `storages` resolves torch's persistent ids."""

    def __init__(self, stream: BinaryIO, storages: Any) -> None:
        super().__init__(stream, encoding="latin1")
        self._storages = storages

    def persistent_load(self, record: Any) -> Any:
        return self._storages(record)

    def find_class(self, module: str, name: str) -> Any:
        if module == "torch" and name in _DTYPES:
            return _DTYPES[name]
        if f"{module} {name}" not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
        # Fresh objects: a pickle that modifies them has no lasting effect.
        if name == "OrderedDict":
            return type("StateDict", (dict,), {})
        if name == "_rebuild_parameter":
            return lambda data, *_: data
        return lambda storage, offset, size, stride, *_: _tensor(storage, offset, size, stride)


def _tensor(storage: np.ndarray, offset: int, size: Any, stride: Any) -> np.ndarray:
    """View of a flat storage by torch's (offset, size, stride), bounds-checked."""
    if type(storage) is not np.ndarray or storage.ndim != 1 or not storage.flags.owndata:
        raise ValueError("a tensor's storage is not in the file")
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or any(type(n) is not int or n < 0 for n in numbers):
        raise ValueError(f"invalid size {size} or stride {stride} of a tensor")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if math.prod(size) and last >= storage.size:
        raise ValueError(f"a tensor of size {size} exceeds its storage of {storage.size}")
    steps = tuple(step * storage.itemsize for step in stride)
    return np.lib.stride_tricks.as_strided(storage[offset:], size, steps, writeable=False)


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        pickles = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(pickles) != 1:
            raise InputError(f"{path}: a zip file without torch's data.pkl")
        folder = pickles[0].removesuffix("data.pkl")

        def storage(record: Any) -> np.ndarray:
            _, dtype, key, _, numel = record
            name = f"{folder}data/{key}"
            if archive.getinfo(name).file_size != numel * dtype.itemsize:
                raise ValueError(f"storage {key} doesn't have {numel} entries")
            return np.frombuffer(archive.read(name), dtype).copy()

        stream = io.BytesIO(archive.read(pickles[0]))
        _refuse_callables(stream, path)
        return _Unpickler(stream, storage).load()


def _read_legacy(path: Path) -> Any:
    with path.open("rb") as stream:
        bytes_left = path.stat().st_size
        storages: dict[str, np.ndarray] = {}

        def storage(record: Any) -> np.ndarray:
            nonlocal bytes_left
            _, dtype, key, _, numel, view = record
            if view is not None:
                raise ValueError("views of storages are not supported")
            if key not in storages:
                bytes_left -= numel * dtype.itemsize
                if numel < 0 or bytes_left < 0:
                    raise ValueError(f"storage {key} is longer than the file")
                storages[key] = np.empty(numel, dtype)
            return storages[key]

        def load() -> Any:
            _refuse_callables(stream, path)
            return _Unpickler(stream, storage).load()

        if stream.read(2) != b"\x80\x02" or stream.seek(0) or load() != LEGACY_MAGIC:
            raise InputError(f"{path}: not a torch checkpoint")
        load(), load()  # protocol version, system information
        state = load()
        keys = load()
        if set(keys) != set(storages):
            raise ValueError("the storages listed are not those of the tensors")
        for key in keys:
            if int.from_bytes(stream.read(8), "little") != storages[key].size:
                raise ValueError(f"storage {key} differs in length from its tensors' record")
            if stream.readinto(storages[key].view(np.uint8).data) != storages[key].nbytes:
                raise ValueError("the file is truncated")
        return state
