"""The one loop that streams images through a scorer, sharded over all devices."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import jax
import numpy as np
from jax import Array

from pfm_jax.datasets.images import batches
from pfm_jax.system import devices
from pfm_jax.types import Example, InputError

T = TypeVar("T")
Scores = TypeVar("Scores")


class HasImageScores(Protocol):
    """A pytree with image scores `[B]`."""

    @property
    def image_scores(self) -> Array:
        """Scores of the real images, then of padding."""
        ...


Scored = TypeVar("Scored", bound=HasImageScores)


def stream(
    score: Callable[[Any], Scores], padded: Iterable[tuple[np.ndarray, int, T]]
) -> Iterator[tuple[Scores, T]]:
    """Scores batches in order; the devices have the next one while the consumer looks at one.

    Args:
        score: uint8 RGB `[B, S, S, 3]` -> a pytree of arrays `[B, ...]`.
        padded: this process's slice of a batch, the number of real images in the batch (padding
            comes last), and anything that goes with it.

    Yields:
        The scores of the real images as NumPy arrays, and what went with the batch.
    """
    waiting: tuple[Scores, int, T] | None = None

    def fetched(found: Scores, count: int, item: T) -> tuple[Scores, T]:
        return jax.tree.map(lambda array: np.asarray(array)[:count], devices.fetch(found)), item

    for images, count, item in padded:
        found = score(devices.shard_batch(images))
        if waiting:
            yield fetched(*waiting)
        waiting = found, count, item
    if waiting:
        yield fetched(*waiting)


def pad(images: np.ndarray) -> tuple[np.ndarray, int]:
    """Pads a batch to the next of `devices.batch_sizes`, so that few programs serve all.

    Returns the number of real images too.
    """
    count = len(images)
    size = next(size for size in devices.batch_sizes() if size >= count)
    last = images[-1:] if count else np.zeros((1, *images.shape[1:]), images.dtype)
    return np.concatenate([images, np.repeat(last, size - count, 0)]), count


def score_examples(
    score: Callable[[Any], Scored], examples: Sequence[Example], size: int, what: str | None
) -> Iterator[Scored]:
    """Scores a data set, batch after batch, each image resized to a square of side `size`.

    `what` is the name of the progress bar; None for none. Raises InputError: an image that can't be
    read, or whose score is not finite.
    """
    done, decoded = 0, batches(examples, size, devices.batch_size(), what)
    for found, _ in stream(score, ((images, count, None) for images, count in decoded)):
        if not (finite := np.isfinite(found.image_scores)).all():
            path = examples[done + int(finite.argmin())].path
            raise InputError(f"{path}: its score is not finite")
        done += len(finite)
        yield found
