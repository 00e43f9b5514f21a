"""Real-IAD (Wang et al., 2024): thirty categories seen by five cameras, with splits as JSON.

    ROOT/realiad_jsons/realiad_jsons/audiojack.json     the splits: all views together
    ROOT/realiad_1024/audiojack/OK/S0001/NAME.jpg       or realiad_512, realiad_256, realiad_raw
    ROOT/realiad_1024/audiojack/NG/DEFECT/S0001/NAME.jpg, NAME.png

Protocol: a model a category, all views of it together, or one view with the splits of another
folder: `--data_dir=ROOT/realiad_jsons/realiad_jsons_sv`. Those with anomalous training images are
refused. From https://realiad4ad.github.io/Real-IAD (CC BY-NC-SA 4.0).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pfm_jax.datasets.archive import locate
from pfm_jax.datasets.entries import Entry, Layout, dataset
from pfm_jax.types import Dataset, InputError

__all__ = ["categories", "load", "locate"]

SPLITS = ("realiad_jsons/realiad_jsons", "realiad_jsons", ".")  # the first that holds any
IMAGES = ("realiad_1024", "realiad_512", "realiad_256", "realiad_raw")  # the first that is there


def categories(root: Path) -> list[str]:
    """Categories with a split, sorted. Raises InputError: there are none."""
    return sorted(path.stem for path in _splits(root).glob("*.json"))


def load(root: Path, category: str, value_range: float = 0.0) -> Dataset:
    """Loads a category. Raises InputError: no images, or a split that is not understood."""
    path = _splits(root) / f"{category}.json"
    images = _images(root)
    try:
        split = json.loads(path.read_text())
        place, good = images / split["meta"]["prefix"], split["meta"]["normal_class"]
        train, test = ([_entry(place, one, good) for one in split[k]] for k in ("train", "test"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: is not a split of Real-IAD ({error!r})") from error
    if bad := [entry for entry in train if entry.label]:
        raise InputError(f"{path}: has anomalous training images, such as {bad[0].image}")
    return dataset(Layout(images, train, test), category, value_range, masks_required=True)


def _entry(place: Path, row: dict[str, Any], good: str) -> Entry:
    image, kind = place / row["image_path"], row["anomaly_class"]
    if kind == good:
        return Entry(image)
    mask = row.get("mask_path")
    return Entry(image, (place / mask,) if mask else (), 1, kind)


def _splits(root: Path) -> Path:
    for name in SPLITS:
        if any((root / name).glob("*.json")):
            return root / name
    raise InputError(f"data_dir={root}: contains no splits (realiad_jsons/CATEGORY.json)")


def _images(root: Path) -> Path:
    """Folder of the images, in `root` or in a folder that it lies in."""
    for folder in (root, *root.resolve().parents[:2]):
        for name in IMAGES:
            if (folder / name).is_dir():
                return folder / name
    raise InputError(f"data_dir={root}: contains no images (one of {', '.join(IMAGES)})")
