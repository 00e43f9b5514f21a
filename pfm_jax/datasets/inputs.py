"""Images from anywhere: a folder, files, globs, arrays, PIL images."""

from __future__ import annotations

import glob
import io
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import PIL.Image

from pfm_jax.datasets.folder import SUFFIXES, read
from pfm_jax.datasets.lazy import Lazy
from pfm_jax.system.files import shown
from pfm_jax.types import Example, InputError

Image = str | Path | np.ndarray | jax.Array | PIL.Image.Image
Images = Image | Iterable[Image]
"""A folder (with all below it), a file or a glob; a NumPy or JAX array `[N, H, W]` or
`[N, H, W, C]`; a PIL image; or an iterable of any of these, where arrays are `[H, W]` or
`[H, W, C]`. C is 1, 3, or 4, whose last is dropped; integers are uint8 or uint16, other numbers
from 0 to 1.
"""


def examples(images: Images) -> Sequence[Example]:
    """Images as examples. Raises InputError: none, or something that is no image."""
    if isinstance(images, str | Path):
        items: list[Any] = list(find(images)[1])
    elif isinstance(images, np.ndarray | jax.Array):
        items = _split(np.asarray(images))
    elif isinstance(images, PIL.Image.Image):
        items = [images]
    elif isinstance(images, Iterable) and not isinstance(images, bytes | Mapping):
        items = [one for item in images for one in _expanded(item)]
    else:
        raise InputError(f"images is a {type(images).__name__}: {WANTED}")
    if not items:
        raise InputError("no images are given")
    for index, item in enumerate(items):
        if not isinstance(item, Path | np.ndarray | PIL.Image.Image):
            raise InputError(f"images[{index}] is a {type(item).__name__}: {WANTED}")
    return Lazy(lambda index: _example(items[index], index), range(len(items)))


WANTED = (
    "must be a folder, a file, a glob, an array, a PIL image, or a sequence or generator of these"
)


def _split(array: np.ndarray) -> list[np.ndarray]:
    if array.ndim == 3 and array.shape[-1] in (1, 3, 4):
        raise InputError(
            f"images of shape {array.shape}: one image? give images[None]; grey images are "
            "[N, H, W]"
        )
    if array.ndim not in (3, 4):
        raise InputError(f"images of shape {array.shape}: must be [N, H, W, C] or [N, H, W]")
    return list(array)


def _expanded(item: Any) -> list[Any]:
    """A folder or a glob in a sequence as its files, an array as a NumPy array."""
    if isinstance(item, jax.Array):
        return [np.asarray(item)]
    if isinstance(item, str | Path):
        place = Path(item)
        several = place.is_dir() or (glob.has_magic(str(item)) and not place.is_file())
        return list(find(item)[1]) if several else [place]
    return [item]


def _example(item: Path | np.ndarray | PIL.Image.Image, index: int) -> Example:
    name = f"images[{index}]"
    if isinstance(item, Path):
        return Example(shown(item), read(item), None, 0, "good")
    if isinstance(item, np.ndarray):
        return Example(name, encoded(item, name), None, 0, "good")
    buffer = io.BytesIO()
    item.save(buffer, "tiff")
    return Example(name, buffer.getvalue(), None, 0, "good")


def find(images: str | Path) -> tuple[Path, list[Path]]:
    """Finds the files of a folder and all below it, of a glob (`**` for any depth), or one file.

    Returns:
        The folder that holds all of them, and the files, sorted. Links to folders are not followed.

    Raises:
        InputError: no image found.
    """
    place = Path(images)
    if place.is_dir():
        found = sorted(
            Path(folder, name)
            for folder, _, names in os.walk(place)
            for name in names
            if Path(name).suffix.lower() in SUFFIXES
        )
        root = place
    elif place.is_file():
        return place.parent, [place]
    else:
        found = sorted(p for p in map(Path, glob.glob(str(images), recursive=True)) if p.is_file())
        fixed = place.parts[:-1]
        wild = next((i for i, part in enumerate(fixed) if glob.has_magic(part)), len(fixed))
        root = Path(*fixed[:wild])
    if not found:
        raise InputError(f"images={images}: no image there ({', '.join(sorted(SUFFIXES))})")
    return root, found


def encoded(array: np.ndarray, name: str) -> bytes:
    """Encodes an array as an 8-bit image file. Raises InputError; see `Images`."""
    if (
        array.ndim not in (2, 3)
        or 0 in array.shape
        or array.shape[2:] not in ((), (1,), (3,), (4,))
    ):
        raise InputError(f"{name} has shape {array.shape}: must be [H, W] or [H, W, 1, 3 or 4]")
    if array.dtype == np.uint16:
        array = (array / 257).round().astype(np.uint8)
    elif np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise InputError(f"{name}: numbers of {array.dtype} must be from 0 to 1")
        array = (255 * array).round().astype(np.uint8)
    elif array.dtype != np.uint8:
        raise InputError(f"{name} is {array.dtype}: must be uint8, uint16 or float")
    pixels = array[..., :3] if array.ndim == 3 else array
    buffer = io.BytesIO()
    PIL.Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels).save(buffer, "bmp")
    return buffer.getvalue()
