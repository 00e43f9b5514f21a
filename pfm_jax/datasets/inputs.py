"""Images from anywhere: a folder, files, globs, arrays, PIL images."""

from __future__ import annotations

import glob
import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import PIL.Image
import PIL.ImageOps

from pfm_jax.datasets.decoding import UNREADABLE, reason, saved
from pfm_jax.datasets.entries import read
from pfm_jax.datasets.lazy import Lazy
from pfm_jax.datasets.walk import SUFFIXES, image_files, is_below, is_hidden, told
from pfm_jax.system.files import shown
from pfm_jax.types import Example, InputError

Image = str | Path | np.ndarray | jax.Array | PIL.Image.Image
Images = Image | Iterable[Image]
"""A folder (with all below it), a file or a glob; a NumPy or JAX array `[N, H, W]` or
`[N, H, W, C]`; a PIL image; or an iterable of any of these, where arrays are `[H, W]` or
`[H, W, C]`. C is 1, 3, or 4, whose last is dropped; integers are uint8 or uint16, other numbers
from 0 to 1.
"""


log = logging.getLogger(__name__)

WANTED = "must be a folder, file, glob, array or PIL image, or a sequence or generator of these"


def examples(images: Images, value_range: float = 0.0) -> Sequence[Example]:
    """Images as examples. Raises InputError: no images, or another type.

    `value_range` is that of their files; see `decoding.decode`.
    """
    if isinstance(images, str | Path):
        items: list[Any] = list(find(images)[1])
    elif isinstance(images, np.ndarray | jax.Array):
        items = _split(np.asarray(images))
    elif isinstance(images, PIL.Image.Image):
        items = [images]
    elif isinstance(images, Iterable) and not isinstance(images, bytes | Mapping):
        items = [one for item in images for one in _expanded(item)]
    else:
        raise InputError(f"images of type {type(images).__name__}: {WANTED}")
    if not items:
        raise InputError("no images given")
    for index, item in enumerate(items):
        if not isinstance(item, Path | np.ndarray | PIL.Image.Image):
            raise InputError(f"images[{index}] of type {type(item).__name__}: {WANTED}")
    return Lazy(lambda index: _example(items[index], index, value_range), range(len(items)))


def _split(array: np.ndarray) -> list[np.ndarray]:
    if array.ndim == 3 and array.shape[-1] in (1, 3, 4):
        raise InputError(
            f"images of shape {array.shape}: pass one image as images[None], grey ones as [N, H, W]"
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


def _example(item: Path | np.ndarray | PIL.Image.Image, index: int, value_range: float) -> Example:
    name = f"images[{index}]"
    if isinstance(item, Path):
        name, content = shown(item), read(item)
    elif isinstance(item, np.ndarray):
        content = encoded(item, name)
    else:
        try:
            content = saved(PIL.ImageOps.exif_transpose(item), "tiff", compression="raw")
        except UNREADABLE as error:
            raise InputError(f"{name}: not a readable image ({reason(error)})") from error
    return Example(name, content, None, 0, "good", value_range)


def find(images: str | Path, output: Path | None = None) -> tuple[Path, list[Path]]:
    """Common folder and files, sorted, of a folder (with all below), a glob (with `**`) or a file.

    What lies below `output` is not input. Warns of what a folder holds besides; see
    `walk.image_files`. Raises InputError: no image found.
    """
    place, passed = Path(images), Counter[str]()
    root, found = place, image_files(place, passed, output)
    if place.is_file():
        root, found = place.parent, [place]
    elif not place.is_dir():
        chosen = map(Path, glob.glob(str(images), recursive=True))
        found = [p for p in chosen if p.is_file() and not (is_hidden(p) or _within(p, output))]
        root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), place.parts[:-1]))
    lines = told(place, passed)
    if not found:
        raise InputError("; ".join([f"images={images}: no image found ({_suffixes()})", *lines]))
    for line in lines:
        log.warning(line)
    return root, sorted(found)


def _within(path: Path, output: Path | None) -> bool:
    return output is not None and is_below(path, output)


def _suffixes() -> str:
    return ", ".join(sorted(SUFFIXES))


def encoded(array: np.ndarray, name: str) -> bytes:
    """Encodes an array as an 8-bit image file. Raises InputError; see `Images`."""
    channels = array.shape[2:]
    if array.ndim < 2 or 0 in array.shape or channels not in ((), (1,), (3,), (4,)):
        raise InputError(f"{name} has shape {array.shape}: must be [H, W] or [H, W, 1, 3 or 4]")
    if array.dtype == np.uint16:
        array = (array / 257).round().astype(np.uint8)
    elif np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise InputError(f"{name}: {array.dtype} values must be from 0 to 1")
        array = (255 * array).round().astype(np.uint8)
    elif array.dtype != np.uint8:
        raise InputError(f"{name} is {array.dtype}: must be uint8, uint16 or float")
    if channels:
        array = array[..., 0] if channels == (1,) else array[..., :3]
    return saved(PIL.Image.fromarray(array), "bmp")
