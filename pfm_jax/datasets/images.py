"""Encoded files -> uint8 arrays of one size. Pillow does it, in threads.

Any image that Pillow reads is taken. It is turned as its EXIF orientation says and becomes RGB:
grey is repeated three times, a palette is looked up, transparency is dropped, 16-bit and
floating-point images are scaled from their own range of values (0 to 65535, 0 to 1) to 8 bits.
Non-square images are resized to the square, not cropped.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
from PIL import Image, ImageOps
from tqdm import tqdm

from pfm_jax.types import Example, InputError

BATCH_SIZE = 8
"""Images that go through the networks at a time."""

AHEAD = 4
"""Batches that are being decoded while one is used."""


def open_rgb(encoded: bytes, name: str) -> Image.Image:
    """Decodes a file to 8-bit RGB at its own size. Raises InputError that names it."""
    try:
        with Image.open(io.BytesIO(encoded)) as opened:
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith(("I", "F")):
                values = np.asarray(image, np.float64)
                scale = 255 if image.mode == "F" else 255 / 65535
                image = Image.fromarray((values * scale).clip(0, 255).round().astype(np.uint8))
            return (
                image.convert("RGBA").convert("RGB") if image.mode == "P" else image.convert("RGB")
            )
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"{name}: not a readable image ({error})") from error


def decode_image(example: Example, size: int) -> np.ndarray:
    """uint8 `[size, size, 3]`, resized with LANCZOS as the released code does."""
    image = open_rgb(example.image, example.path)
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))


def decode_mask(example: Example, size: int) -> np.ndarray:
    """bool `[size, size]`: the ground truth, nearest neighbour; all False for a good image.

    Raises:
        InputError: unreadable.
    """
    if example.mask is None:
        return np.zeros((size, size), bool)
    try:
        with Image.open(io.BytesIO(example.mask)) as opened:
            coloured = opened.mode in ("P", "PA", "LA", "RGBA")  # transparency marks no defect
            mask = opened.convert("RGB") if coloured else opened.copy()
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"mask of {example.path}: not a readable image ({error})") from error
    resized = np.asarray(mask.resize((size, size), Image.Resampling.NEAREST))
    return np.asarray(resized.reshape(size, size, -1) > 0).max(-1)


def batches(
    examples: Sequence[Example], size: int, batch_size: int = BATCH_SIZE, what: str | None = None
) -> Iterator[tuple[np.ndarray, int]]:
    """Decodes in order, a few batches ahead of the consumer.

    Args:
        examples: what to decode.
        size: see `decode_image`.
        batch_size: images in a batch.
        what: the name of the progress bar, which is shown on a terminal; None for none.

    Yields:
        uint8 images `[batch_size, size, size, 3]`, the last batch padded by repeating its last
        image so that its shape compiles nothing new, and how many of them are real.
    """

    def one_batch(start: int) -> tuple[np.ndarray, int]:
        chosen = range(start, min(start + batch_size, len(examples)))
        images = [decode_image(examples[index], size) for index in chosen]
        padded = images + images[-1:] * (batch_size - len(images))
        return np.stack(padded), len(images)

    starts = iter(range(0, len(examples), batch_size))
    bar = tqdm(desc=what, total=len(examples), unit="image", disable=None if what else True)
    with ThreadPoolExecutor() as pool, bar:
        pending = [pool.submit(one_batch, start) for start in islice(starts, AHEAD)]
        while pending:
            images, count = pending.pop(0).result()
            pending.extend(pool.submit(one_batch, start) for start in islice(starts, 1))
            yield images, count
            bar.update(count)


def masks(examples: Sequence[Example], size: int) -> np.ndarray:
    """bool `[N, size, size]`; see `decode_mask`."""
    with ThreadPoolExecutor() as pool:
        decoded = pool.map(lambda index: decode_mask(examples[index], size), range(len(examples)))
        return np.stack(list(decoded))
