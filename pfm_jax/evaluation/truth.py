"""Ground truth of the test images of a data set, decoded once for all maps that are measured."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np

from pfm_jax import metrics
from pfm_jax.datasets import images
from pfm_jax.evaluation import spro
from pfm_jax.types import Dataset, InputError


class Truth(NamedTuple):
    """Ground truth of N test images.

    Attributes:
        paths: of the images.
        labels, kinds: `[N]`, 0 (good) or 1 (anomalous), and the kind of defect.
        regions: of their masks; None without masks.
        saturated: regions of each image, for sPRO; empty where the data set doesn't define it.
    """

    paths: tuple[str, ...]
    labels: np.ndarray
    kinds: np.ndarray
    regions: metrics.Regions | None
    saturated: list[list[spro.Region]]

    @property
    def both(self) -> bool:
        """Whether there are good and anomalous images."""
        return len(np.unique(self.labels)) == 2


def ground_truth(dataset: Dataset, size: int) -> Truth:
    """Ground truth at `[size, size]`. Raises InputError: no mask marks anything."""
    known = dataset.saturations

    def one(index: int) -> tuple[str, int, str, np.ndarray | None, list[spro.Region]]:
        example = dataset.test[index]
        mask = images.decode_mask(example, size) if dataset.has_masks else None
        saturated = spro.regions(example, size, known) if known else []
        return example.path, example.label, example.defect, mask, saturated

    with ThreadPoolExecutor() as pool:
        found = list(pool.map(one, range(len(dataset.test))))
    paths, labels, kinds, masks, saturated = zip(*found, strict=True) if found else ((),) * 5
    regions = metrics.label(np.stack(masks)) if dataset.has_masks and found else None
    if regions is not None and len(regions.sizes) == 1:
        raise InputError(f"{dataset.category}: no mask marks a pixel of images of {size} pixels")
    return Truth(
        paths, np.array(labels), np.array(kinds), regions, list(saturated) if known else []
    )
