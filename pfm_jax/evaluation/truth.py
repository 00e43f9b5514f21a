"""Ground truth of the test images of a data set, decoded once for all maps that are measured."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from pfm_jax import metrics
from pfm_jax.datasets import images
from pfm_jax.evaluation import spro
from pfm_jax.types import Dataset, InputError


class Truth(NamedTuple):
    """Ground truth of N test images.

    Attributes:
        labels, kinds: `[N]`, 0 (good) or 1 (anomalous), and the kind of defect.
        regions: of their masks; None without masks.
        saturated: regions of each image, for sPRO; empty where the data set doesn't define it.
    """

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
    masks = images.masks(dataset.test, size) if dataset.has_masks else None
    if masks is not None and not masks.any():
        raise InputError(f"{dataset.category}: no mask marks a pixel of images of {size} pixels")
    known = dataset.saturations
    return Truth(
        np.array([example.label for example in dataset.test]),
        np.array([example.defect for example in dataset.test]),
        metrics.label(masks) if masks is not None else None,
        [spro.regions(example, size, known) for example in dataset.test] if known else [],
    )
