"""Magnetic Tile Defects (Huang et al., 2020), as published on GitHub; sizes vary.

    ROOT/MT_Free/Imgs/*.jpg                     tiles without a defect
    ROOT/MT_Blowhole/Imgs/NAME.jpg              tiles with a blowhole; likewise MT_Break, MT_Crack,
    ROOT/MT_Blowhole/Imgs/NAME.png              MT_Fray and MT_Uneven; each mask beside its tile
    ROOT/train.txt                              training images in MT_Free, one file name per line

The published files have no split. Without `train.txt`, four fifths of MT_Free, drawn by a fixed
seed, are training images, the others good test images. Grey tiles become RGB; all are resized.
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path

from pfm_jax.datasets import archive
from pfm_jax.datasets.entries import Entry, Layout, dataset, drawn
from pfm_jax.datasets.walk import image_files, told
from pfm_jax.types import Dataset, InputError

CATEGORY = "magnetic_tile"
FREE, LIST, MASK_SUFFIX = "MT_Free", "train.txt", ".png"
TRAIN_FRACTION = 0.8

__all__ = ["categories", "load", "locate"]

log = logging.getLogger(__name__)


def locate(data_dir: Path | None) -> Path:
    """Folder of the data set, or the one in it that holds the tiles; see `datasets.Loader`."""
    root = archive.locate(data_dir)
    inner = [one.parent for one in root.glob(f"*/{FREE}")]
    return inner[0] if len(inner) == 1 and not (root / FREE).is_dir() else root


def categories(root: Path) -> list[str]:
    """The single category."""
    return [CATEGORY]


def load(root: Path, category: str, value_range: float = 0.0) -> Dataset:
    """Loads the tiles. Raises InputError: another layout, or a listed image is missing."""
    if not (root / FREE / "Imgs").is_dir():
        raise InputError(f"data_dir={root}: contains no folder {FREE}/Imgs")
    good, passed = [], Counter[str]()
    test: list[Entry] = []
    for folder in sorted(root.glob("MT_*")):
        files = image_files(folder / "Imgs", passed)
        masks = {path.stem: path for path in files if path.suffix.lower() == MASK_SUFFIX}
        tiles = [path for path in files if path.suffix.lower() != MASK_SUFFIX]
        if folder.name == FREE:
            good = tiles
            continue
        if without := next((path for path in tiles if path.stem not in masks), None):
            raise InputError(f"{without}: no mask; expected {without.with_suffix(MASK_SUFFIX)}")
        kind = folder.name.removeprefix("MT_").lower()
        test += [Entry(path, (masks[path.stem],), 1, kind) for path in tiles]
    chosen = _listed(root, good) if (root / LIST).is_file() else _drawn(good)
    train = [Entry(path) for path in good if path.name in chosen]
    test = [Entry(path) for path in good if path.name not in chosen] + test
    layout = Layout(root, train, test, told(root, passed))
    return dataset(layout, category, value_range, masks_required=True)


def _listed(root: Path, good: list[Path]) -> set[str]:
    names = {line.strip() for line in (root / LIST).read_text().splitlines() if line.strip()}
    if unknown := sorted(names - {path.name for path in good}):
        raise InputError(f"{root / LIST}: {unknown[0]} is not in {FREE}/Imgs")
    return names


def _drawn(good: list[Path]) -> set[str]:
    count = round(TRAIN_FRACTION * len(good))
    log.info("%s: no %s; training on %d of %d good tiles", FREE, LIST, count, len(good))
    return {good[index].name for index in drawn(len(good), count)}
