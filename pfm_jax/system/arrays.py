"""Named arrays and their metadata in one safetensors file with a checksum."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import safetensors
import safetensors.numpy

from pfm_jax.system import files
from pfm_jax.types import InputError

FORMAT = "pfm_jax detector 6"


def named(tree: Any) -> dict[str, np.ndarray]:
    """Host arrays of a pytree, keyed by path: `model/conv4_x/forward/0/kernel`."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {_name(path): np.ascontiguousarray(leaf) for path, leaf in leaves}


def _name(path: tuple[Any, ...]) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")


def filled(like: Any, arrays: dict[str, np.ndarray], path: Path) -> Any:
    """Fills the pytree `like` (of shapes) with the arrays of a file.

    Raises InputError: an array is missing, unexpected or of the wrong shape or type.
    """
    wanted, structure = jax.tree_util.tree_flatten_with_path(like)
    shapes = {_name(place): (leaf.shape, leaf.dtype) for place, leaf in wanted}
    found = {name: (array.shape, array.dtype) for name, array in arrays.items()}
    if wrong := sorted(k for k in {*shapes, *found} if shapes.get(k) != found.get(k)):
        raise InputError(f"{path}: its arrays don't fit its recipe; first difference: {wrong[0]}")
    return jax.tree.unflatten(structure, [arrays[name] for name in shapes])


def shapes_in(arrays: dict[str, np.ndarray], folder: str) -> dict[str, Any]:
    """Name in a folder -> shape of each array there."""
    return {
        name.removeprefix(f"{folder}/"): jax.ShapeDtypeStruct(array.shape, array.dtype)
        for name, array in arrays.items()
        if name.startswith(f"{folder}/")
    }


def fingerprint(arrays: dict[str, np.ndarray]) -> str:
    """sha256 (hex) of all names, shapes, dtypes and values."""
    digest = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        digest.update(f"{name}\0{array.shape}\0{array.dtype}\0".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def write(path: Path, arrays: dict[str, np.ndarray], about: dict[str, Any]) -> None:
    """Writes arrays and metadata atomically. Raises InputError on failure."""
    about = {**about, "format": FORMAT, "sha256": fingerprint(arrays)}
    # One key: safetensors writes several in any order, and equal detectors are equal files.
    files.write(path, safetensors.numpy.save(arrays, {"about": json.dumps(about)}))


def read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Reads arrays and metadata. Raises InputError: a missing or damaged file."""
    try:
        with safetensors.safe_open(path, "np") as file:
            about = json.loads((file.metadata() or {}).get("about", "{}"))
            if about.get("format") != FORMAT:
                raise InputError(f"{path}: not a detector saved by this version of pfm_jax")
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except InputError:
        raise
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        raise InputError(f"{path}: not a readable detector ({error})") from error
    if fingerprint(arrays) != about["sha256"]:
        raise InputError(f"{path}: corrupt (checksum mismatch); save it again")
    return arrays, about
