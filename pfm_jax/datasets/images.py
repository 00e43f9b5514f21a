"""Examples as uint8 arrays of one size, decoded by Pillow in threads.

See `decoding` for what a file becomes. Non-square images are resized to a square, not cropped.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import jax
import numpy as np
from PIL import Image
from tqdm import tqdm

from pfm_jax.datasets import decoding
from pfm_jax.datasets.masks import decode_mask as decode_mask_file
from pfm_jax.types import BLANK, Example

A = TypeVar("A")
B = TypeVar("B")

PREFETCH_COUNT = 4  # batches decoded ahead of the consumer


def resized(image: Image.Image, size: int) -> np.ndarray:
    """Resizes to uint8 `[size, size, 3]` with LANCZOS, as the released code does."""
    return np.asarray(image.resize((size, size), Image.Resampling.LANCZOS))


def decode_image(example: Example, size: int) -> np.ndarray:
    """Decodes an image to uint8 `[size, size, 3]`, blank where it is ignored. Raises InputError."""
    found = decoding.decode(example.image, example.path, example.value_range)
    pixels = resized(found.image, size)
    if example.ignored is None:
        return pixels
    return np.where(blank_at(example.ignored, size)[..., None], np.array(BLANK, np.uint8), pixels)


def blank_at(ignored: np.ndarray, size: int) -> np.ndarray:
    """Pixels of `resized` that a mask `[h, w]` of the images' size has any part in: `[size, size]`.

    Those within the three lobes of LANCZOS too, so that nothing ignored shows anywhere else.
    """
    for axis in (0, 1):
        length = ignored.shape[axis]
        if length == size:
            continue
        scale = length / size
        centre, reach = (np.arange(size) + 0.5) * scale, 3 * max(scale, 1.0)
        first = np.clip((centre - reach + 0.5).astype(int), 0, length)
        stop = np.clip((centre + reach + 0.5).astype(int), 0, length)
        ends = np.pad(np.cumsum(ignored, axis), [(axis == at, 0) for at in (0, 1)])
        ignored = np.take(ends, stop, axis) > np.take(ends, first, axis)
    return ignored


def mask_at(marked: np.ndarray, size: int | tuple[int, int]) -> np.ndarray:
    """Resizes a mask, bool `[h, w]`, to a square or to (height, width) (nearest)."""
    height, width = (size, size) if isinstance(size, int) else size
    nearest = Image.fromarray(marked).resize((width, height), Image.Resampling.NEAREST)
    return np.asarray(nearest)


def decode_mask(example: Example, size: int) -> np.ndarray:
    """Decodes a ground-truth mask to bool `[size, size]` (nearest); all False if there is none.

    Raises InputError.
    """
    if example.mask is None:
        return np.zeros((size, size), bool)
    return mask_at(decode_mask_file(example.mask, f"mask of {example.path}").marked, size)


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
    starts = range(0, len(examples), batch_size)

    def chosen(start: int) -> range:
        first, last = start + jax.process_index() * own, len(examples) - 1
        return range(min(first, last), min(first + own, last + 1))

    def one(index: int) -> np.ndarray:
        example = examples[index]
        with decoding.turn(example.image):
            return decode_image(example, size)

    decoded = ahead(one, itertools.chain.from_iterable(map(chosen, starts)), own)
    disable = None if what else True
    with tqdm(desc=what, total=len(examples), unit="image", disable=disable) as bar:
        for start, images in zip(starts, decoded, strict=True):
            count = min(batch_size, len(examples) - start)
            yield np.stack(images + images[-1:] * (own - len(images))), count
            bar.update(count)


def ahead(work: Callable[[A], B], items: Iterable[A], size: int) -> Iterator[list[B]]:
    """Applies `work` to each item, in threads enough for all cores.

    Yields results in order, in lists of `size`, of which the last may be shorter; a few lists ahead
    of the consumer.
    """
    left = iter(items)
    with ThreadPoolExecutor() as pool:
        pending = [pool.submit(work, item) for item in islice(left, PREFETCH_COUNT * size)]
        while pending:
            done = [one.result() for one in pending[:size]]
            pending = [*pending[size:], *(pool.submit(work, item) for item in islice(left, size))]
            yield done


def map_at(anomaly_map: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Resizes an anomaly map `[h, w]` to its image's size (width, height), bilinear, float32."""
    return np.asarray(Image.fromarray(anomaly_map).resize(size, Image.Resampling.BILINEAR))


def masks(examples: Sequence[Example], size: int) -> np.ndarray:
    """Decodes all masks to bool `[N, size, size]`; see `decode_mask`."""
    with ThreadPoolExecutor() as pool:
        decoded = pool.map(lambda index: decode_mask(examples[index], size), range(len(examples)))
        return np.stack(list(decoded))
