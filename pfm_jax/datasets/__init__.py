"""The data sets: which categories there are, and one of them as good and mixed examples."""

from __future__ import annotations

import difflib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pfm_jax import files
from pfm_jax.datasets import archive, btad, elpv, folder, mtd, mvtec_ad, visa
from pfm_jax.datasets.lazy import Lazy
from pfm_jax.types import Dataset, Example, InputError

NAMES = ("mvtec_ad", "folder", "elpv", "mtd", "btad", "visa")
SPLIT_SEED = 0


def categories(dataset: str, data_dir: Path | None, chosen: str, cache: Path) -> list[str]:
    """`[chosen]`, or every category of the data set where `chosen` is `"all"`, sorted.

    Raises:
        InputError: no such data set, folder or category.
    """
    root = _root(dataset, data_dir, cache)
    if dataset == "elpv":
        found = ["solar_cells"]
    elif dataset == "mtd":
        found = [mtd.CATEGORY]
    else:
        found = visa.categories(root) if dataset == "visa" else folder.categories(root)
    if chosen == "all":
        return found
    if chosen not in found:
        near = difflib.get_close_matches(chosen, found)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"category={chosen}: not among {', '.join(found)}{hint}")
    return [chosen]


def load(dataset: str, data_dir: Path | None, category: str, cache: Path) -> Dataset:
    """One category.

    Args:
        dataset: one of `NAMES`.
        data_dir: the folder of the data set, or an archive of it; unused for `elpv`.
        category: of `categories`.
        cache: where prepared data may be kept.

    Raises:
        InputError: what is wrong with the data, and where.
    """
    root = _root(dataset, data_dir, cache)
    if dataset == "mvtec_ad":
        return mvtec_ad.load(root / category, cache)
    if dataset == "elpv":
        return elpv.load()
    if dataset == "mtd":
        return mtd.load(root)
    if dataset == "visa":
        return visa.load(root, category)
    return (btad if dataset == "btad" else folder).load(root / category)


def hold_out(
    examples: Sequence[Example], part: float
) -> tuple[Sequence[Example], Sequence[Example]]:
    """Sets a part aside, rounded down, always the same ones: what is left, and what is aside."""
    total = len(examples)
    count = math.floor(total * part + 1e-9)
    order = np.random.default_rng(SPLIT_SEED).permutation(total).tolist()
    aside, left = sorted(order[:count]), sorted(order[count:])
    return Lazy(examples.__getitem__, left), Lazy(examples.__getitem__, aside)


def _root(dataset: str, data_dir: Path | None, cache: Path) -> Path:
    """The folder of a data set, unpacked and, where it has an address, downloaded."""
    if dataset not in NAMES:
        raise InputError(f"config.data.dataset={dataset!r}: must be one of {NAMES}")
    if dataset == "elpv":
        return elpv.root()
    published = {"btad": btad, "visa": visa}.get(dataset)
    if data_dir is None and published:
        data_dir = _downloaded(published.URL, published.SHA256, cache)
    if data_dir is None:
        raise InputError("data_dir is not set: --data_dir=FOLDER, the folder of the categories")
    root = archive.unpack(data_dir, cache) if data_dir.is_file() else data_dir
    return root / btad.INSIDE if (root / btad.INSIDE).is_dir() else root


def _downloaded(url: str, sha256: str, cache: Path) -> Path:
    target = cache / "downloads" / url.rsplit("/", 1)[1]
    if not target.is_file():
        try:
            files.download(url, sha256, target)
        except OSError as error:
            raise InputError(f"{url}: {error}; download it and set --data_dir to it") from error
    return target
