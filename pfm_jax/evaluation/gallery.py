"""Pictures of a detector's most and least anomalous test images."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pfm_jax.datasets import images as image_files
from pfm_jax.evaluation import figures
from pfm_jax.inference.detector import Detector
from pfm_jax.types import Dataset

MOST_ANOMALOUS = 6  # images shown; a third as many of the least anomalous follow


def panels(detector: Detector, dataset: Dataset, scores: np.ndarray) -> list[figures.Panel]:
    """Panels of the most, then the least anomalous test images by image `scores` `[N]`."""
    order = np.argsort(-scores, kind="stable")
    least = order[max(MOST_ANOMALOUS, len(order) - MOST_ANOMALOUS // 3) :]
    chosen = [(dataset.test[index], scores[index]) for index in (*order[:MOST_ANOMALOUS], *least)]
    found: list[figures.Panel] = []
    size = detector.config.data.image_size
    for maps in detector.stream([example for example, _ in chosen]):
        for anomaly_map in maps.fused:
            example, score = chosen[len(found)]
            image = image_files.decode_image(example, size)
            mask = image_files.decode_mask(example, size) if dataset.has_masks else None
            title = f"{example.defect}\n{Path(example.path).name}: {score:.3f}"
            found.append(figures.Panel(title, image, mask, np.asarray(anomaly_map)))
    return found
