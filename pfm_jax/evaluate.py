"""A trained run on its test images: metrics, scores and the picture."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from pfm_jax import files, intervals, mapping, metrics, report, scoring
from pfm_jax.checkpoint import Provenance
from pfm_jax.config import Config
from pfm_jax.datasets import images as image_files
from pfm_jax.features import Networks
from pfm_jax.mapping import FoldedHeads
from pfm_jax.train import TrainState
from pfm_jax.types import Dataset, Metrics

SHOWN = 6
"""Of the most anomalous test images in `heatmaps.png`; and a third as many of the least."""


Combinations = Sequence[tuple[str, ...]]


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
    combinations: Combinations = (),
) -> dict[str, Any]:
    """Scores the test images, writes `scores.csv`, the pictures and at last `metrics.json`.

    `combinations` of levels are measured besides all levels and each of them.

    Returns:
        What `metrics.json` holds.
    """
    config = provenance.config
    size = config.data.image_size
    with timed(seconds, "evaluate"):
        heads = jax.jit(mapping.fold)(state.params, state.batch_stats)
        maps, scores, labels, paths = _score(heads, dataset, networks, config, combinations)
        masks = image_files.masks(dataset.test, size) if dataset.has_masks else None
        measured = {
            level: _measure(maps.get(level), scores[level], labels, masks)
            for level in tqdm(scores, desc="metrics", unit="map", disable=None)
        }
    table = io.StringIO()
    rows = zip(paths, (f"{score:.8g}" for score in scores["fused"]), labels, strict=True)
    csv.writer(table, lineterminator="\n").writerows([("path", "score", "label"), *rows])
    files.write(folder / "scores.csv", table.getvalue().encode())
    panels = _panels(heads, provenance, dataset, networks, scores["fused"])
    threshold = None if masks is None else segmentation_threshold(maps["fused"], masks)
    _write_pictures(panels, threshold, provenance.category, folder)
    results = {
        **_measurements(measured, tuple(config.mapping.latent), combinations),
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
    return results


def _measurements(
    measured: dict[str, Metrics], levels: tuple[str, ...], combinations: Combinations
) -> dict[str, Any]:
    found = {name: dataclasses.asdict(metrics) for name, metrics in measured.items()}
    return {
        **found["fused"],
        "levels": {level: found[level] for level in levels},
        "combinations": {name: found[name] for name in map(joined, combinations)},
    }


def segmentation_threshold(maps: np.ndarray, masks: np.ndarray, fpr: float = 0.005) -> float:
    """The score that a part `fpr` of the normal pixels of all images exceeds (figure 6)."""
    return float(np.quantile(maps[~masks], 1 - fpr))


def _write_pictures(
    panels: list[report.Panel], threshold: float | None, category: str, folder: Path
) -> None:
    """`heatmaps.png`, and each test image in it by itself in `gallery/`."""
    files.write(folder / "heatmaps.png", report.heatmaps(panels, category, SHOWN))
    for index, panel in enumerate(panels):
        files.write(folder / "gallery" / f"{index}.png", report.strip(panel, threshold))
    gallery = [{"title": panel.title, "truth": panel.mask is not None} for panel in panels]
    files.write(folder / "gallery" / "gallery.json", json.dumps(gallery).encode())


def joined(levels: Sequence[str]) -> str:
    """The name of a combination of levels."""
    return "+".join(levels)


def _score(
    heads: FoldedHeads,
    dataset: Dataset,
    networks: Networks,
    config: Config,
    combinations: Combinations,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray], np.ndarray, list[str]]:
    """Maps `[N, H, W]` (only where there are masks) and image scores `[N]`, by what they are of:
    all levels (`fused`), one, or a combination.
    """
    maps: dict[str, list[np.ndarray]] = defaultdict(list)
    scores: dict[str, list[np.ndarray]] = defaultdict(list)
    for _, found in scoring.score_examples(networks, heads, dataset.test, config, "scoring"):
        means = {joined(c): np.mean([found.levels[k] for k in c], axis=0) for c in combinations}
        for name, host in {"fused": found.fused, **found.levels, **means}.items():
            scores[name].append(host.max((1, 2)))
            if dataset.has_masks:
                maps[name].append(host)
    labels = np.array([example.label for example in dataset.test])
    paths = [example.path for example in dataset.test]
    stacked = {name: np.concatenate(parts) for name, parts in maps.items()}
    return stacked, {name: np.concatenate(parts) for name, parts in scores.items()}, labels, paths


def _measure(
    maps: np.ndarray | None, scores: np.ndarray, labels: np.ndarray, masks: np.ndarray | None
) -> Metrics:
    pixel_auroc = pro_auc = None
    found = {"image_auroc": intervals.image_interval(scores, labels)}
    if maps is not None and masks is not None:
        pixel_auroc, pro_auc = metrics.pixel_metrics(maps, masks)
        found["pixel_auroc"], found["pro_auc"] = intervals.pixel_intervals(maps, masks)
    return Metrics(
        image_auroc=metrics.image_auroc(scores, labels),
        image_ap=metrics.image_ap(scores, labels),
        pixel_auroc=pixel_auroc,
        pro_auc=pro_auc,
        intervals=found,
    )


def _panels(
    heads: FoldedHeads,
    provenance: Provenance,
    dataset: Dataset,
    networks: Networks,
    scores: np.ndarray,
) -> list[report.Panel]:
    """The most and then the least anomalous test images, most anomalous first."""
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
    return panels
