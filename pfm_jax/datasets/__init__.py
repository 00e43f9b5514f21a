"""The data sets: which categories there are, and one of them as good and mixed examples."""

from __future__ import annotations

from pathlib import Path

from pfm_jax.datasets import elpv, folder, mvtec_ad
from pfm_jax.types import Dataset, InputError

NAMES = ("mvtec_ad", "folder", "elpv")


def categories(dataset: str, data_dir: Path | None, chosen: str, cache: Path) -> list[str]:
    """`[chosen]`, or every category of the data set where `chosen` is `"all"`, sorted.

    Raises:
        InputError: no such data set, folder or category.
    """
    found = (
        ["solar_cells"] if dataset == "elpv" else folder.categories(_root(dataset, data_dir, cache))
    )
    if chosen == "all":
        return found
    if chosen not in found:
        raise InputError(f"category={chosen}: not among {', '.join(found)}")
    return [chosen]


def load(dataset: str, data_dir: Path | None, category: str, cache: Path) -> Dataset:
    """One category.

    Args:
        dataset: one of `NAMES`.
        data_dir: the folder of the categories (`mvtec_ad`: or an archive); unused for `elpv`.
        category: a folder of `data_dir`.
        cache: where prepared data may be kept.

    Raises:
        InputError: what is wrong with the data, and where.
    """
    if dataset == "elpv":
        return elpv.load()
    root = _root(dataset, data_dir, cache) / category
    return folder.load(root) if dataset == "folder" else mvtec_ad.load(root, cache)


def _root(dataset: str, data_dir: Path | None, cache: Path) -> Path:
    if dataset not in NAMES:
        raise InputError(f"config.data.dataset={dataset!r}: must be one of {NAMES}")
    if data_dir is None:
        raise InputError("data_dir is not set: --data_dir=FOLDER, the folder of the categories")
    if dataset == "mvtec_ad" and data_dir.is_file():
        return mvtec_ad.unpack(data_dir, cache)
    return data_dir
