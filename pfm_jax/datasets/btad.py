"""BTAD (Mishra et al., 2021): categories 01, 02 and 03, nearly in MVTec AD's layout.

    ROOT/01/train/ok/*.bmp
    ROOT/01/test/ok/*.bmp
    ROOT/01/test/ko/NAME.bmp
    ROOT/01/ground_truth/ko/NAME.png            (or NAME.bmp)

Without `data_dir` the published archive is downloaded (CC BY-NC-SA 4.0).
"""

from __future__ import annotations

from pathlib import Path

from pfm_jax.datasets import archive
from pfm_jax.datasets.folder import categories
from pfm_jax.datasets.folder import load_with_masks as load

URL = "https://avires.dimi.uniud.it/papers/btad/btad.zip"
SHA256 = "461c9387e515bfed41ecaae07c50cf6b10def647b36c9e31d239ab2736b10d2a"
ARCHIVE_FOLDER = "BTech_Dataset_transformed"

__all__ = ["categories", "load", "locate"]


def locate(data_dir: Path | None) -> Path:
    """Folder of the data set; see `datasets.Loader`."""
    root = archive.locate(data_dir or archive.download(URL, SHA256))
    return root / ARCHIVE_FOLDER if (root / ARCHIVE_FOLDER).is_dir() else root
