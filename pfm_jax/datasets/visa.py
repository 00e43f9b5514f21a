"""VisA (Zou et al., 2022): twelve categories, with its one-class split.

    ROOT/split_csv/1cls.csv                     object, split, label, image, mask
    ROOT/candle/Data/Images/Normal/*.JPG
    ROOT/candle/Data/Images/Anomaly/*.JPG
    ROOT/candle/Data/Masks/Anomaly/*.png        non-zero is anomalous

Without `data_dir` the published archive is downloaded (1.9 GB; CC BY 4.0).
"""

from __future__ import annotations

import csv
from pathlib import Path

from pfm_jax.datasets import archive
from pfm_jax.datasets.entries import Entry, Layout, dataset
from pfm_jax.types import Dataset, InputError

URL = "https://amazon-visual-anomaly.s3.us-west-2.amazonaws.com/VisA_20220922.tar"
SHA256 = "2eb8690c803ab37de0324772964100169ec8ba1fa3f7e94291c9ca673f40f362"
COLUMNS = ("object", "split", "label", "image", "mask")


def _rows(root: Path) -> list[dict[str, str]]:
    path = root / "split_csv" / "1cls.csv"
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: can't be read ({error}); it comes with VisA") from error
    if not rows or not set(COLUMNS) <= set(rows[0]):
        raise InputError(f"{path}: must have the columns {', '.join(COLUMNS)} and at least one row")
    return rows


def locate(data_dir: Path | None) -> Path:
    """Folder of the data set; see `datasets.Loader`."""
    return archive.locate(data_dir or archive.download(URL, SHA256))


def categories(root: Path) -> list[str]:
    """Categories listed in the split, sorted. Raises InputError."""
    return sorted({row["object"] for row in _rows(root)})


def load(root: Path, category: str, value_range: float = 0.0) -> Dataset:
    """Loads a category. Raises InputError: no split, or one that lists missing files."""
    splits: dict[str, list[Entry]] = {"train": [], "test": []}
    for row in _rows(root):
        if row["object"] == category:
            good = row["label"] == "normal"
            masks = (root / row["mask"],) if row["mask"] and not good else ()
            entry = Entry(root / row["image"], masks, int(not good), "good" if good else "anomaly")
            splits[row["split"]].append(entry)
    if any(entry.label for entry in splits["train"]):
        raise InputError(f"{root}: the split puts anomalous images of {category} into training")
    layout = Layout(root, splits["train"], splits["test"])
    return dataset(layout, category, value_range, masks_required=True)
