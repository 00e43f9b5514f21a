"""MVTec LOCO AD (Bergmann et al., 2022): five categories with logical and structural anomalies.

    ROOT/breakfast_box/train/good/*.png
    ROOT/breakfast_box/validation/good/*.png    held out, for the threshold
    ROOT/breakfast_box/test/good/*.png          likewise logical_anomalies, structural_anomalies
    ROOT/breakfast_box/ground_truth/logical_anomalies/NAME/000.png      one mask a region
    ROOT/breakfast_box/defects_config.json      value of a mask -> area that suffices

Protocol: a model a category; image AUROC and sPRO up to a rate of 0.05, each the mean of the two
kinds of anomalies against the good images, which `metrics.json` has in `kinds`. From
https://www.mvtec.com/company/research/datasets/mvtec-loco (CC BY-NC-SA 4.0).
"""

from __future__ import annotations

import json
from pathlib import Path

from pfm_jax.datasets.entries import dataset
from pfm_jax.datasets.folder import categories, folder_of, locate, scan
from pfm_jax.types import Dataset, InputError, Saturation

__all__ = ["categories", "load", "locate"]

SATURATIONS = "defects_config.json"


def load(root: Path, category: str, value_range: float = 0.0) -> Dataset:
    """Loads a category. Raises InputError: no `defects_config.json`; see `folder`."""
    place = folder_of(root, category)
    layout = scan(place)._replace(saturations=_saturations(place / SATURATIONS))
    return dataset(layout, category, value_range, masks_required=True)


def _saturations(path: Path) -> dict[int, Saturation]:
    try:
        return {
            int(one["pixel_value"]): Saturation(
                float(one["saturation_threshold"]), bool(one["relative_saturation"])
            )
            for one in json.loads(path.read_text())
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = "it comes with MVTec LOCO; without it, use --config.data.dataset=folder"
        raise InputError(f"{path}: can't be read ({error!r}); {what}") from error
