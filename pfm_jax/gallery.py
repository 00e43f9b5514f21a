"""The pictures of a run: its most and least anomalous test images and what was found in them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from pfm_jax import files, report, scoring
from pfm_jax import images as image_files
from pfm_jax.config import Config
from pfm_jax.features import Networks
from pfm_jax.mapping import FoldedHeads
from pfm_jax.types import Dataset

SHOWN = 6
"""Of the most anomalous test images in `heatmaps.png`; and a third as many of the least."""


def panels(
    heads: FoldedHeads, networks: Networks, dataset: Dataset, scores: np.ndarray, config: Config
) -> list[report.Panel]:
    """The most and then the least anomalous test images, most anomalous first, by their `scores`
    `[N]`.
    """
    order = np.argsort(-scores, kind="stable")
    least = order[max(SHOWN, len(order) - SHOWN // 3) :]
    chosen = [dataset.test[int(index)] for index in (*order[:SHOWN], *least)]
    found: list[report.Panel] = []
    size = config.data.image_size
    for maps in scoring.score_examples(networks, heads, chosen, config):
        for anomaly_map in maps.fused:
            example = chosen[len(found)]
            image = image_files.decode_image(example, size)
            mask = image_files.decode_mask(example, size) if dataset.has_masks else None
            title = f"{example.defect}\n{Path(example.path).name}: {anomaly_map.max():.3f}"
            found.append(report.Panel(title, image, mask, anomaly_map))
    return found


def segmentation_threshold(maps: np.ndarray, masks: np.ndarray, fpr: float = 0.005) -> float:
    """The score that a part `fpr` of the normal pixels of all images exceeds (figure 6)."""
    return float(np.quantile(maps[~masks], 1 - fpr))


def write(shown: list[report.Panel], threshold: float | None, category: str, folder: Path) -> None:
    """`heatmaps.png`, and each test image in it by itself in `gallery/`."""
    files.write(folder / "heatmaps.png", report.heatmaps(shown, category, SHOWN))
    for index, panel in enumerate(shown):
        files.write(folder / "gallery" / f"{index}.png", report.strip(panel, threshold))
    gallery = [{"title": panel.title, "truth": panel.mask is not None} for panel in shown]
    files.write(folder / "gallery" / "gallery.json", json.dumps(gallery).encode())
