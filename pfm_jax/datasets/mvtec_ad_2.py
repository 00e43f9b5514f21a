"""MVTec AD 2 (Heckler-Kram et al., 2025): eight categories with images to calibrate on.

    ROOT/can/train/good/*.png
    ROOT/can/validation/good/*.png              held out, for the threshold
    ROOT/can/test_public/good/*.png
    ROOT/can/test_public/bad/NAME.png
    ROOT/can/test_public/ground_truth/bad/NAME_mask.png
    ROOT/can/test_private/*.png                 likewise test_private_mixed; without ground truth

Protocol: a model a category, measured on `test_public`, by `pro_auc_05` first. The private images
are judged by https://benchmark.mvtec.com alone; `launch.predict` scores them. From
https://www.mvtec.com/company/research/datasets/mvtec-ad-2 (CC BY-NC-SA 4.0).
"""

from __future__ import annotations

from pathlib import Path

from pfm_jax.datasets.entries import dataset
from pfm_jax.datasets.folder import Parts, categories, folder_of, locate, scan
from pfm_jax.types import Dataset

__all__ = ["categories", "load", "locate"]


def load(root: Path, category: str, value_range: float = 0.0) -> Dataset:
    """Loads a category. Raises InputError; see `folder.load_with_masks`."""
    layout = scan(folder_of(root, category), _as_in_mvtec_ad)
    return dataset(layout, category, value_range, masks_required=True)


def _as_in_mvtec_ad(parts: Parts) -> Parts:
    match parts:
        case ["test_public", "ground_truth", *place]:
            return ("ground_truth", *place)
        case ["test_public", *place]:
            return ("test", *place)
    return parts
