"""Data sets: images in, categories of normal and mixed examples out.

A further data set is one file beside `folder.py` that keeps to `Loader`, and its name in `NAMES`.
"""

from __future__ import annotations

import difflib
import importlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from pfm_jax.datasets.lazy import Lazy
from pfm_jax.types import Dataset, Example, InputError

NAMES = ("mvtec_ad", "folder", "elpv", "mtd", "btad", "visa")
"""Data sets, each a module of this package, imported when it is used."""

SPLIT_SEED = 0
"""Seed of the images that are held out."""


class Loader(Protocol):
    """Functions of the module of a data set. All raise InputError."""

    def locate(self, data_dir: Path | None) -> Path:
        """The folder of the data set: unpacked or, where it has an address, downloaded."""

    def categories(self, root: Path) -> list[str]:
        """All categories in that folder, sorted."""

    def load(self, root: Path, category: str) -> Dataset:
        """One category."""


def _loader(dataset: str) -> Loader:
    if dataset not in NAMES:
        raise InputError(f"config.data.dataset={dataset!r}: must be one of {NAMES}")
    return cast(Loader, importlib.import_module(f"{__name__}.{dataset}"))


def categories(dataset: str, data_dir: str | Path | None, chosen: str = "all") -> list[str]:
    """`[chosen]`, or every category of a data set where `chosen` is `"all"`, sorted.

    Raises:
        InputError: no such data set, folder or category.
    """
    loader = _loader(dataset)
    found = loader.categories(loader.locate(_path(data_dir)))
    if chosen == "all":
        return found
    if chosen not in found:
        near = difflib.get_close_matches(chosen, found)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"category={chosen}: not among {', '.join(found)}{hint}")
    return [chosen]


def load(dataset: str, data_dir: str | Path | None, category: str) -> Dataset:
    """Loads one category.

    Args:
        dataset: one of `NAMES`.
        data_dir: the folder of the data set, or an archive of it; unused for `elpv`.
        category: one of `categories`.

    Raises:
        InputError: a fault of the data, and where it is.
    """
    loader = _loader(dataset)
    return loader.load(loader.locate(_path(data_dir)), category)


def _path(data_dir: str | Path | None) -> Path | None:
    return Path(data_dir) if data_dir else None


def hold_out(
    examples: Sequence[Example], fraction: float
) -> tuple[Sequence[Example], Sequence[Example]]:
    """Splits off a fraction, rounded down, always the same examples: the rest, and the fraction."""
    total = len(examples)
    count = math.floor(total * fraction + 1e-9)
    order = np.random.default_rng(SPLIT_SEED).permutation(total).tolist()
    aside, left = sorted(order[:count]), sorted(order[count:])
    return Lazy(examples.__getitem__, left), Lazy(examples.__getitem__, aside)
