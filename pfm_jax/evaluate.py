"""A trained run on its test images: metrics, scores and the picture."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from pfm_jax import files, mapping, metrics, report, scoring
from pfm_jax.checkpoint import Provenance
from pfm_jax.config import Config
from pfm_jax.datasets import images as image_files
from pfm_jax.features import Networks
from pfm_jax.mapping import FoldedHeads
from pfm_jax.train import TrainState
from pfm_jax.types import Dataset, Metrics

SHOWN = 6
"""Of the most anomalous test images in `heatmaps.png`; and a third as many of the least."""


@contextmanager
def timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    """Adds what the block takes to `seconds`, under the name of its phase."""
    start = time.perf_counter()
    yield
    seconds[phase] = seconds.get(phase, 0.0) + time.perf_counter() - start


def evaluate(
    state: TrainState,
    provenance: Provenance,
    dataset: Dataset,
    networks: Networks,
    folder: Path,
    seconds: dict[str, float],
) -> dict[str, Any]:
    """Scores the test images, writes `metrics.json`, `scores.csv` and `heatmaps.png`.

    Returns:
        What `metrics.json` holds.
    """
    config = provenance.config
    size = config.data.image_size
    with timed(seconds, "evaluate"):
        heads = jax.jit(mapping.fold)(state.params, state.batch_stats)
        maps, scores, labels, paths = _score(heads, dataset, networks, config)
        masks = image_files.masks(dataset.test, size) if dataset.has_masks else None
        measured = {
            level: _measure(maps.get(level), scores[level], labels, masks)
            for level in tqdm(scores, desc="metrics", unit="map", disable=None)
        }
    results = {
        **dataclasses.asdict(measured.pop("fused")),
        "levels": {level: dataclasses.asdict(values) for level, values in measured.items()},
        "seconds": seconds,
        "counts": {
            "train": provenance.num_images,
            "test_good": int((labels == 0).sum()),
            "test_anomalous": int(labels.sum()),
        },
        "step": int(state.step),
        **provenance.to_json(),
        "seed": config.seed,
    }
    files.write(folder / "metrics.json", (json.dumps(results, indent=2) + "\n").encode())
    table = io.StringIO()
    rows = zip(paths, (f"{score:.8g}" for score in scores["fused"]), labels, strict=True)
    csv.writer(table, lineterminator="\n").writerows([("path", "score", "label"), *rows])
    files.write(folder / "scores.csv", table.getvalue().encode())
    shown = _heatmaps(heads, provenance, dataset, networks, scores["fused"])
    files.write(folder / "heatmaps.png", shown)
    return results


def _score(
    heads: FoldedHeads, dataset: Dataset, networks: Networks, config: Config
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray, list[str]]:
    """Maps `[N, H, W]` (only where there are masks) and image scores `[N]`, by level and fused."""
    names = ("fused", *config.mapping.latent)
    maps: dict[str, list[Any]] = {name: [] for name in names}
    scores: dict[str, list[Any]] = {name: [] for name in names}
    for _, found in scoring.score_examples(networks, heads, dataset.test, config, "scoring"):
        for name, host in {"fused": found.fused, **found.levels}.items():
            scores[name].append(host.max((1, 2)))
            if dataset.has_masks:
                maps[name].append(host)
    labels = np.array([example.label for example in dataset.test])
    paths = [example.path for example in dataset.test]
    stacked = {name: np.concatenate(parts) for name, parts in maps.items() if parts}
    return stacked, {name: np.concatenate(parts) for name, parts in scores.items()}, labels, paths


def _measure(
    maps: np.ndarray | None, scores: np.ndarray, labels: np.ndarray, masks: np.ndarray | None
) -> Metrics:
    pixel_auroc = pro_auc = None
    if maps is not None and masks is not None:
        pixel_auroc, pro_auc = metrics.pixel_metrics(maps, masks)
    return Metrics(
        image_auroc=metrics.image_auroc(scores, labels),
        image_ap=metrics.image_ap(scores, labels),
        pixel_auroc=pixel_auroc,
        pro_auc=pro_auc,
    )


def _heatmaps(
    heads: FoldedHeads,
    provenance: Provenance,
    dataset: Dataset,
    networks: Networks,
    scores: np.ndarray,
) -> bytes:
    """The most and the least anomalous test images, most anomalous first."""
    order = np.argsort(-scores, kind="stable")
    least = order[max(SHOWN, len(order) - SHOWN // 3) :]
    chosen = [dataset.test[int(index)] for index in (*order[:SHOWN], *least)]
    size = provenance.config.data.image_size
    panels: list[report.Panel] = []
    for images, found in scoring.score_examples(networks, heads, chosen, provenance.config):
        for image, anomaly_map in zip(images, found.fused, strict=True):
            example = chosen[len(panels)]
            mask = image_files.decode_mask(example, size) if dataset.has_masks else None
            title = f"{example.defect}\n{Path(example.path).name}: {anomaly_map.max():.3f}"
            panels.append(report.Panel(title, image, mask, anomaly_map))
    low = float(np.median([panel.anomaly_map for panel in panels[SHOWN:] or panels]))
    title = f"{provenance.category}: most anomalous test images, then the least"
    return report.heatmaps(panels, title, low, float(scores.max()))
