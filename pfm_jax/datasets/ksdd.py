"""KolektorSDD (Tabernik et al., 2020): 399 surfaces of commutators, 52 with a crack.

    ROOT/kos01/Part0.jpg
    ROOT/kos01/Part0_label.bmp                  all black for a good surface

Protocol: none is published for training without defects. Four fifths of the good surfaces, drawn by
a fixed seed, are for training; the others and all cracks for testing. From
https://www.vicos.si/resources/kolektorsdd (CC BY-NC-SA 4.0).
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from pfm_jax.datasets.archive import locate
from pfm_jax.datasets.beside import judged
from pfm_jax.datasets.entries import Layout, dataset, drawn
from pfm_jax.datasets.walk import image_files, told
from pfm_jax.types import Dataset

__all__ = ["categories", "load", "locate"]

CATEGORY, DEFECT, MASK_ENDING = "commutators", "crack", "_label"
TRAIN_FRACTION = 0.8


def categories(root: Path) -> list[str]:
    """The single category."""
    return [CATEGORY]


def load(root: Path, category: str, value_range: float = 0.0) -> Dataset:
    """Loads the surfaces. Raises InputError: an image without mask."""
    passed: Counter[str] = Counter()
    found = judged(image_files(root, passed), MASK_ENDING, DEFECT)
    good = [entry for entry in found if not entry.label]
    chosen = drawn(len(good), round(TRAIN_FRACTION * len(good)))
    train = [entry for index, entry in enumerate(good) if index in chosen]
    test = [entry for index, entry in enumerate(good) if index not in chosen]
    test += [entry for entry in found if entry.label]
    return dataset(Layout(root, train, test, told(root, passed)), category, value_range)
