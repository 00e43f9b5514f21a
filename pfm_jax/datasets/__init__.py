"""Data sets: images in, categories of normal and mixed examples out.

A new data set is one file beside `folder.py` that implements `Loader`, and its name in `NAMES`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import hashlib
import importlib
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, cast

import numpy as np

from pfm_jax.datasets.lazy import Lazy, chain
from pfm_jax.types import Dataset, Example, InputError

NAMES = (
    "mvtec_ad",
    "folder",
    "elpv",
    "mtd",
    "btad",
    "visa",
    "mvtec_loco",
    "mvtec_ad_2",
    "mpdd",
    "ksdd",
    "ksdd2",
    "real_iad",
)
"""Data sets, each a module of this package, imported on first use."""

SPLIT_SEED = 0  # of the held-out images

log = logging.getLogger(__name__)


class Loader(Protocol):
    """Functions of a data set's module. All raise InputError."""

    def locate(self, data_dir: Path | None) -> Path:
        """Root folder of the data set, unpacked or downloaded if necessary."""

    def categories(self, root: Path) -> list[str]:
        """All categories below the root, sorted."""

    def load(self, root: Path, category: str, value_range: float = 0.0) -> Dataset:
        """One category, all of whose files were decoded once; see `entries.dataset`."""


def _locate(dataset: str, data_dir: str | Path | None) -> tuple[Loader, Path]:
    if dataset not in NAMES:
        raise InputError(f"config.data.dataset={dataset!r}: must be one of {NAMES}")
    loader = cast(Loader, importlib.import_module(f"{__name__}.{dataset}"))
    return loader, loader.locate(Path(data_dir) if data_dir else None)


def categories(dataset: str, data_dir: str | Path | None, chosen: str = "all") -> list[str]:
    """The chosen category, or all, sorted. Raises InputError: no such data set or category."""
    loader, root = _locate(dataset, data_dir)
    with _as_given(data_dir, root):
        found = loader.categories(root)
    if chosen not in ("all", *found):
        near = difflib.get_close_matches(chosen, found)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"category={chosen}: unknown; available: {', '.join(found)}{hint}")
    return found if chosen == "all" else [chosen]


def load(
    dataset: str, data_dir: str | Path | None, category: str, value_range: float = 0.0
) -> Dataset:
    """Loads one category, and logs what is to be said about its files.

    Args:
        dataset: one of `NAMES`.
        data_dir: folder of the data set, or an archive of it; unused for `elpv`.
        category: one of `categories`.
        value_range: see `decoding.decode`.

    Raises InputError: faulty data; names the files.
    """
    loader, root = _locate(dataset, data_dir)
    with _as_given(data_dir, root) as given:
        found = loader.load(root, category, value_range)
        for line in found.warnings:
            log.warning(given(line))
    return found


@contextlib.contextmanager
def _as_given(data_dir: str | Path | None, root: Path) -> Iterator[Callable[[str], str]]:
    """Names the user's archive, where a text names the folder it is unpacked to, in errors too."""

    def given(text: str) -> str:
        return text.replace(str(root), str(data_dir)) if data_dir else text

    try:
        yield given
    except InputError as error:
        raise InputError(given(str(error))) from error


def draw_shots(examples: Sequence[Example], shots: int, seed: int) -> Sequence[Example]:
    """Draws `shots` examples, in order; all if 0. A seed's smaller draws are subsets of its larger.

    Raises InputError: there are fewer examples.
    """
    if not shots:
        return examples
    if shots > len(examples):
        limit = f"at most {len(examples)}, the number of training images"
        raise InputError(f"config.data.shots={shots}: must be {limit}")
    drawn = np.random.default_rng(seed).permutation(len(examples))[:shots]
    return Lazy(examples.__getitem__, sorted(drawn.tolist()))


def united(category: str, parts: Sequence[Dataset]) -> Dataset:
    """The training images of several categories as one data set, with nothing to test on."""

    def named(part: Dataset) -> Lazy:
        def read(index: int) -> Example:
            example = part.train[index]
            return dataclasses.replace(example, path=f"{part.category}/{example.path}")

        return Lazy(read, range(len(part.train)))

    digests = "".join(f"{part.category}\0{part.fingerprint}\0" for part in parts)
    fingerprint = hashlib.sha256(digests.encode()).hexdigest()
    return Dataset(category, chain([*map(named, parts)]), (), False, fingerprint)


def hold_out(
    examples: Sequence[Example], fraction: float
) -> tuple[Sequence[Example], Sequence[Example]]:
    """Splits by a fixed seed into the rest and a held-out fraction, rounded down."""
    total = len(examples)
    count = math.floor(total * fraction + 1e-9)
    order = np.random.default_rng(SPLIT_SEED).permutation(total).tolist()
    aside, left = sorted(order[:count]), sorted(order[count:])
    return Lazy(examples.__getitem__, left), Lazy(examples.__getitem__, aside)
