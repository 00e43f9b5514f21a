"""Images that belong to no data set: arrays, files, a folder, a pattern."""

from __future__ import annotations

import glob
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pfm_jax.datasets.folder import SUFFIXES, read
from pfm_jax.datasets.lazy import Lazy
from pfm_jax.files import shown
from pfm_jax.types import Example, InputError

Images = str | Path | np.ndarray | Sequence[np.ndarray | str | Path]
"""A folder (with all below it), a file or a glob; an array `[N, H, W]` or `[N, H, W, C]`; or a
sequence of arrays `[H, W]` or `[H, W, C]` and files. C is 1, 3, or 4, whose last is dropped;
integers are uint8 or uint16, other numbers from 0 to 1.
"""


def examples(images: Images) -> Sequence[Example]:
    """The images as examples. Raises InputError: none found, or an array that is no image."""
    if isinstance(images, str | Path):
        return _given(find(images)[1])
    if isinstance(images, np.ndarray):
        if images.ndim == 3 and images.shape[-1] in (1, 3, 4):
            raise InputError(
                f"images of shape {images.shape}: one image? give images[None]; grey images are "
                "[N, H, W]"
            )
        if images.ndim not in (3, 4):
            raise InputError(f"images of shape {images.shape}: must be [N, H, W, C] or [N, H, W]")
    if not len(images):
        raise InputError("no images are given")
    return _given(list(images))


def _given(items: Sequence[np.ndarray | str | Path]) -> Lazy:
    def one(index: int) -> Example:
        item = items[index]
        if isinstance(item, np.ndarray):
            name = f"images[{index}]"
            return Example(name, encoded(item, name), None, 0, "good")
        return Example(shown(Path(item)), read(Path(item)), None, 0, "good")

    return Lazy(one, range(len(items)))


def find(images: str | Path) -> tuple[Path, list[Path]]:
    """The files of a folder and all below it, of a glob (`**` for any depth), or one file.

    Returns:
        The folder that all are below, and the files, sorted. Links to folders are not followed.

    Raises:
        InputError: nothing there.
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
    """An array as a file without loss but of depth: 8 bits. Raises InputError; see `Images`."""
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
    Image.fromarray(pixels[..., 0] if pixels.shape[2:] == (1,) else pixels).save(buffer, "bmp")
    return buffer.getvalue()
