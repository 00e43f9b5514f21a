"""A sequence of examples that are read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import overload

from pfm_jax.types import Example


class Lazy(Sequence[Example]):
    """`read(index)` of some indices; a slice is as lazy.

    Attributes:
        read: gives the example of an index.
        indices: which there are.
    """

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
