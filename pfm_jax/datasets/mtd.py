"""Magnetic Tile Defects (Huang et al., 2020), as published on GitHub; sizes vary.

    ROOT/MT_Free/Imgs/*.jpg                     tiles without a defect
    ROOT/MT_Blowhole/Imgs/NAME.jpg              tiles with a blowhole; so MT_Break, MT_Crack,
    ROOT/MT_Blowhole/Imgs/NAME.png              MT_Fray and MT_Uneven; the mask beside each
    ROOT/train.txt                              file names of MT_Free to train on, a line each

The published files have no split. Without `train.txt`, four fifths of MT_Free are training images,
by a fixed seed, and the others good test images. Grey tiles are taken as RGB, all resized.
"""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from pfm_jax.datasets.archive import locate
from pfm_jax.datasets.folder import Entry, check, dataset
from pfm_jax.types import Dataset, InputError

CATEGORY = "magnetic_tile"
FREE, LIST = "MT_Free", "train.txt"
SPLIT_SEED, TRAIN_FRACTION = 0, 0.8

__all__ = ["categories", "load", "locate"]

log = logging.getLogger(__name__)


def categories(root: Path) -> list[str]:
    """The one category."""
    del root
    return [CATEGORY]


def load(root: Path, category: str) -> Dataset:
    """Loads the tiles. Raises InputError: no such layout, a name in the list without a file."""
    if not (root / FREE / "Imgs").is_dir():
        raise InputError(f"data_dir={root}: no folder {FREE}/Imgs in it")
    good = sorted((root / FREE / "Imgs").glob("*.jpg"))
    chosen = _listed(root, good) if (root / LIST).is_file() else _drawn(good)
    train = [Entry(path, None, 0, "good") for path in good if path.name in chosen]
    test = [Entry(path, None, 0, "good") for path in good if path.name not in chosen]
    for folder in sorted(root.glob("MT_*/Imgs")):
        defect = folder.parent.name.removeprefix("MT_").lower()
        for path in sorted(folder.glob("*.jpg")) if folder.parent.name != FREE else ():
            mask = path.with_suffix(".png")
            if not mask.is_file():
                raise InputError(f"{path}: no mask for it; expected {mask}")
            test.append(Entry(path, mask, 1, defect))
    check(root, train, test, masks_required=True)
    return dataset(root, train, test, category, has_masks=True)


def _listed(root: Path, good: list[Path]) -> set[str]:
    names = {line.strip() for line in (root / LIST).read_text().splitlines() if line.strip()}
    if unknown := sorted(names - {path.name for path in good}):
        raise InputError(f"{root / LIST}: {unknown[0]} is not among the images of {FREE}/Imgs")
    return names


def _drawn(good: list[Path]) -> set[str]:
    count = round(TRAIN_FRACTION * len(good))
    log.info("%s: no %s, %d of %d good tiles drawn to learn from", FREE, LIST, count, len(good))
    order = np.random.default_rng(SPLIT_SEED).permutation(len(good))
    return {good[index].name for index in order[:count]}
