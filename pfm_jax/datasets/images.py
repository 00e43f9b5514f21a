"""Image decoding: encoded files to uint8 arrays of one size, by Pillow in threads.

Images are rotated to their EXIF orientation and converted to RGB: grey is repeated three times,
palettes are resolved, transparency is dropped, and 16-bit and floating-point images are rescaled
from their nominal range (0 to 65535, 0 to 1) to 8 bits. Non-square images are resized to a square,
not cropped.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from pfm_jax.system import devices
from pfm_jax.types import Example, InputError

A = TypeVar("A")
B = TypeVar("B")

BATCH_SIZE = 8
"""Images per forward pass of the networks."""

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
"""Accepted formats; others have decoders that do more than decode (EPS runs a program)."""

ORIENTATION = 0x0112
"""EXIF tag of the orientation."""

UNREADABLE = Exception
"""Errors that Pillow raises on a truncated or corrupt file: any, even TypeError."""

MIN_SIDE = 8
"""Minimum width and height of an image, in pixels."""

PREFETCH_COUNT = 4
"""Batches decoded ahead of the consumer."""


def open_rgb(encoded: bytes, name: str) -> Image.Image:
    """Decodes a file to 8-bit RGB at its own size.

    Raises:
        InputError: a format not among `FORMATS`, a damaged file, several images in one file, too
            few pixels or (Pillow's limit, 179 million) too many; includes `name`.
    """
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as opened:
            check_shape(opened, name)
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith(("I", "F")):
                values = np.asarray(image, np.float64)
                scale = 255 if image.mode == "F" else 255 / 65535
                image = Image.fromarray((values * scale).clip(0, 255).round().astype(np.uint8))
            return (
                image.convert("RGBA").convert("RGB") if image.mode == "P" else image.convert("RGB")
            )
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(f"{name}: not a readable image ({reason(error)})") from error


def header(path: Path) -> tuple[tuple[int, int], bool]:
    """Width and height, and whether EXIF reorients the image; reads no pixels.

    Raises:
        InputError: see `open_rgb`.
    """
    try:
        with Image.open(path, formats=FORMATS) as opened:
            check_shape(opened, str(path))
            return opened.size, opened.getexif().get(ORIENTATION, 1) != 1
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(f"{path}: not a readable image ({reason(error)})") from error


def reason(error: Exception) -> str:
    """Short text of one of `UNREADABLE`."""
    if isinstance(error, UnidentifiedImageError):
        return f"not one of {', '.join(FORMATS)}"
    return str(error) or type(error).__name__


def check_shape(image: Image.Image, name: str) -> None:
    """Checks frame count and size. Raises InputError. (MPO: a JPEG with previews.)"""
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise InputError(f"{name}: holds {frames} images; give one image a file")
    if min(image.size) < MIN_SIDE:
        width, height = image.size
        raise InputError(f"{name}: is {width}x{height} pixels, needs {MIN_SIDE} a side or more")


def resized(image: Image.Image, size: int) -> np.ndarray:
    """Resizes to uint8 `[size, size, 3]` with LANCZOS, as the released code does."""
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))


def decode_image(example: Example, size: int) -> np.ndarray:
    """Decodes an image to uint8 `[size, size, 3]`. Raises InputError."""
    return resized(open_rgb(example.image, example.path), size)


def decode_mask(example: Example, size: int) -> np.ndarray:
    """Decodes a ground-truth mask to bool `[size, size]` (nearest); all False for a good image.

    Raises:
        InputError: unreadable.
    """
    if example.mask is None:
        return np.zeros((size, size), bool)
    try:
        with Image.open(io.BytesIO(example.mask)) as opened:
            coloured = opened.mode in ("P", "PA", "LA", "RGBA")  # transparency marks no defect
            mask = opened.convert("RGB") if coloured else opened.copy()
    except UNREADABLE as error:
        message = f"mask of {example.path}: not a readable image ({reason(error)})"
        raise InputError(message) from error
    resized = np.asarray(mask.resize((size, size), Image.Resampling.NEAREST))
    return np.asarray(resized.reshape(size, size, -1) > 0).max(-1)


def batches(
    examples: Sequence[Example],
    size: int,
    batch_size: int = BATCH_SIZE,
    what: str | None = None,
) -> Iterator[tuple[np.ndarray, int]]:
    """Decodes in order, a few batches ahead of the consumer.

    Args:
        examples: images to decode.
        size: see `decode_image`.
        batch_size: images in a batch.
        what: label of the progress bar, shown on a terminal only; None for no bar.

    Yields:
        uint8 images `[batch_size, size, size, 3]`, the last batch padded with the last image to
        avoid a recompilation, and the number of images before padding. With several processes,
        each decodes and receives only its slice of the batch.
    """
    number, processes = devices.process_slice()
    own = batch_size // processes

    def one_batch(start: int) -> tuple[np.ndarray, int]:
        first, last = start + number * own, len(examples) - 1
        chosen = [min(index, last) for index in range(first, first + own)]
        decoded = {index: decode_image(examples[index], size) for index in dict.fromkeys(chosen)}
        count = min(batch_size, len(examples) - start)
        return np.stack([decoded[index] for index in chosen]), count

    bar = tqdm(desc=what, total=len(examples), unit="image", disable=None if what else True)
    with bar:
        for images, count in ahead(one_batch, range(0, len(examples), batch_size)):
            yield images, count
            bar.update(count)


def ahead(work: Callable[[A], B], items: Iterable[A]) -> Iterator[B]:
    """Applies `work` to each item in threads, in order, a few items ahead of the consumer."""
    left = iter(items)
    with ThreadPoolExecutor() as pool:
        pending = [pool.submit(work, item) for item in islice(left, PREFETCH_COUNT)]
        while pending:
            done = pending.pop(0).result()
            pending.extend(pool.submit(work, item) for item in islice(left, 1))
            yield done


def map_at(anomaly_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes an anomaly map `[h, w]` to its image's size (width, height), bilinear, float32."""
    return np.asarray(Image.fromarray(anomaly_map).resize(size, Image.Resampling.BILINEAR))


def masks(examples: Sequence[Example], size: int) -> np.ndarray:
    """Decodes all masks to bool `[N, size, size]`; see `decode_mask`."""
    with ThreadPoolExecutor() as pool:
        decoded = pool.map(lambda index: decode_mask(examples[index], size), range(len(examples)))
        return np.stack(list(decoded))
