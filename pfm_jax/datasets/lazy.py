"""Examples that are read when they are accessed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import overload

import numpy as np

from pfm_jax.types import Example


def chain(parts: Sequence[Sequence[Example]]) -> Lazy:
    """Sequences one after the other, read when accessed."""
    places = [(part, index) for part in parts for index in range(len(part))]
    return Lazy(lambda at: places[at][0][places[at][1]], range(len(places)))


def ignoring(examples: Sequence[Example], ignored: np.ndarray | None) -> Sequence[Example]:
    """The same examples, blank where a mask says so; see `types.Example`."""
    if ignored is None:
        return examples
    return Lazy(lambda at: replace(examples[at], ignored=ignored), range(len(examples)))


class Lazy(Sequence[Example]):
    """Sequence of `read(index)` over `indices`; a slice is lazy too."""

    def __init__(self, read: Callable[[int], Example], indices: Sequence[int]) -> None:
        self.read, self.indices = read, indices

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> Example: ...
    @overload
    def __getitem__(self, index: slice) -> Lazy: ...
    def __getitem__(self, index: int | slice) -> Example | Lazy:
        if isinstance(index, slice):
            return Lazy(self.read, self.indices[index])
        return self.read(self.indices[index])
