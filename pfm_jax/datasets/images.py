"""Image decoding: encoded files to uint8 arrays of one size, by Pillow in threads.

Images are rotated to their EXIF orientation and converted to RGB: grey is repeated three times,
palettes are resolved, transparency is dropped, and 16-bit and floating-point images are rescaled
from their nominal range (0 to 65535, 0 to 1) to 8 bits. Non-square images are resized to a square,
not cropped.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import jax
import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from tqdm import tqdm

from pfm_jax.types import Example, InputError

A = TypeVar("A")
B = TypeVar("B")

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
"""Accepted formats; others have decoders that do more than decode (EPS runs a program)."""
ORIENTATION = 0x0112  # EXIF tag
UNREADABLE = Exception  # Pillow raises anything on a corrupt file, even TypeError
MIN_SIDE = 8  # pixels
PREFETCH_COUNT = 4  # batches decoded ahead of the consumer


def open_rgb(encoded: bytes, name: str) -> Image.Image:
    """Decodes a file to 8-bit RGB at its own size.

    Raises:
        InputError: a format not among `FORMATS`, a damaged file, several images in one file, too
            few pixels or (Pillow's limit, 179 million) too many; includes `name`.
    """
    with opened(io.BytesIO(encoded), name) as file:
        image = ImageOps.exif_transpose(file)
        if image.mode.startswith(("I", "F")):
            values = np.asarray(image, np.float64)
            scale = 255 if image.mode == "F" else 255 / 65535
            image = Image.fromarray((values * scale).clip(0, 255).round().astype(np.uint8))
        return (image.convert("RGBA") if image.mode == "P" else image).convert("RGB")


def header(path: Path) -> tuple[tuple[int, int], bool]:
    """Width and height, and whether EXIF rotates the image; reads no pixels. Raises InputError."""
    with opened(path, str(path)) as image:
        return image.size, image.getexif().get(ORIENTATION, 1) != 1


@contextlib.contextmanager
def opened(file: Path | io.BytesIO, name: str) -> Iterator[Image.Image]:
    """Image, checked and open for the block, whose errors become InputError."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            check_shape(image, name)
            yield image
    except InputError:
        raise
    except UNREADABLE as error:
        raise InputError(f"{name}: not a readable image ({reason(error)})") from error


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Encoded file of an image."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def reason(error: Exception) -> str:
    """Short text of an error of Pillow."""
    if isinstance(error, UnidentifiedImageError):
        return f"not one of {', '.join(FORMATS)}"
    return str(error) or type(error).__name__


def check_shape(image: Image.Image, name: str) -> None:
    """Checks frame count and size. Raises InputError. (MPO: a JPEG with previews.)"""
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format != "MPO":
        raise InputError(f"{name}: contains {frames} images; expected one image per file")
    width, height = image.size
    if min(width, height) < MIN_SIDE:
        raise InputError(f"{name}: is {width}x{height} pixels; the minimum is {MIN_SIDE} per side")


def resized(image: Image.Image, size: int) -> np.ndarray:
    """Resizes to uint8 `[size, size, 3]` with LANCZOS, as the released code does."""
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))


def decode_image(example: Example, size: int) -> np.ndarray:
    """Decodes an image to uint8 `[size, size, 3]`. Raises InputError."""
    return resized(open_rgb(example.image, example.path), size)


def decode_mask(example: Example, size: int) -> np.ndarray:
    """Decodes a ground-truth mask to bool `[size, size]` (nearest); all False for a good image.

    Raises InputError.
    """
    if example.mask is None:
        return np.zeros((size, size), bool)
    with opened(io.BytesIO(example.mask), f"mask of {example.path}") as file:
        coloured = file.mode in ("P", "PA", "LA", "RGBA")  # transparency marks no defect
        mask = file.convert("RGB") if coloured else file.copy()
    pixels = np.asarray(mask.resize((size, size), Image.Resampling.NEAREST))
    return np.any(pixels.reshape(size, size, -1) > 0, axis=-1)


def batches(
    examples: Sequence[Example], size: int, batch_size: int, what: str | None = None
) -> Iterator[tuple[np.ndarray, int]]:
    """Decodes in order, a few batches ahead of the consumer.

    With several processes, each decodes and receives only its slice of the batch.

    Args:
        examples: images to decode.
        size: see `decode_image`.
        batch_size: images in a batch, over all processes.
        what: label of the progress bar, shown on a terminal only; None for no bar.

    Yields:
        uint8 images `[batch_size, size, size, 3]`, the last batch padded with the last image to
        avoid a recompilation, and the number of images before padding.
    """
    own = batch_size // jax.process_count()

    def one_batch(start: int) -> tuple[np.ndarray, int]:
        first, last = start + jax.process_index() * own, len(examples) - 1
        chosen = [min(index, last) for index in range(first, first + own)]
        decoded = {index: decode_image(examples[index], size) for index in dict.fromkeys(chosen)}
        count = min(batch_size, len(examples) - start)
        return np.stack([decoded[index] for index in chosen]), count

    disable = None if what else True
    with tqdm(desc=what, total=len(examples), unit="image", disable=disable) as bar:
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
