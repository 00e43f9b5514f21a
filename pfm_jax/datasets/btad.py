"""BTAD (Mishra et al., 2021), the three categories 01, 02 and 03, in nearly MVTec AD's layout.

    ROOT/01/train/ok/*.bmp
    ROOT/01/test/ok/*.bmp
    ROOT/01/test/ko/NAME.bmp
    ROOT/01/ground_truth/ko/NAME.png            (or NAME.bmp)

Without `data_dir` the published archive is downloaded (CC BY-NC-SA 4.0).
"""

from __future__ import annotations

from pathlib import Path

from pfm_jax.datasets import folder
from pfm_jax.types import Dataset

URL = "https://avires.dimi.uniud.it/papers/btad/btad.zip"
SHA256 = "461c9387e515bfed41ecaae07c50cf6b10def647b36c9e31d239ab2736b10d2a"
INSIDE = "BTech_Dataset_transformed"


def load(root: Path) -> Dataset:
    """The category whose folder is `root`; masks are required. Raises InputError."""
    train, test, has_masks = folder.scan(root, masks_required=True)
    return folder.dataset(root, train, test, root.name, has_masks=has_masks)
