"""KolektorSDD2 (Bozic et al., 2021): 3,335 surfaces, 356 with a defect, in two splits.

    ROOT/train/10000.png
    ROOT/train/10000_GT.png                     all black for a good surface
    ROOT/test/20000.png                         likewise

Protocol: without labels of defects, training on the good images of `train`; those with defects are
left out. Measured on all of `test`. From https://www.vicos.si/resources/kolektorsdd2
(CC BY-NC-SA 4.0).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pfm_jax.datasets.archive import locate
from pfm_jax.datasets.beside import judged
from pfm_jax.datasets.entries import Layout, dataset
from pfm_jax.datasets.walk import image_files, told
from pfm_jax.types import Dataset

__all__ = ["categories", "load", "locate"]

CATEGORY, DEFECT, MASK_ENDING = "surfaces", "defect", "_GT"
COPY = " (copy)"  # one image of the published archive is there twice
DEFECTIVE = "a defect among the training images"


def categories(root: Path) -> list[str]:
    """The single category."""
    return [CATEGORY]


def load(root: Path, category: str, value_range: float = 0.0) -> Dataset:
    """Loads the surfaces. Raises InputError: an image without mask."""
    passed: Counter[str] = Counter()
    splits = {}
    for name in ("train", "test"):
        files = image_files(root / name, passed)
        kept = [path for path in files if not path.stem.endswith(COPY)]
        passed["a copy"] += len(files) - len(kept)
        splits[name] = judged(kept, MASK_ENDING, DEFECT)
    train = [entry for entry in splits["train"] if not entry.label]
    passed[DEFECTIVE] += len(splits["train"]) - len(train)
    return dataset(Layout(root, train, splits["test"], told(root, passed)), category, value_range)
