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

from pfm_jax import calibration, files, gallery, intervals, mapping, metrics, scoring, standard
from pfm_jax import images as image_files
from pfm_jax.checkpoint import Provenance
from pfm_jax.config import Config
from pfm_jax.features import Networks
from pfm_jax.mapping import FoldedHeads
from pfm_jax.train import TrainState
from pfm_jax.types import Dataset, Example, Metrics

FALSE_POSITIVE_RATE = 0.05
"""Of the threshold that decisions are reported for."""

NORMAL_SCORES = "normal_scores.csv"

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
    """Scores held-out and test images, writes `normal_scores.csv`, `scores.csv`, the pictures and
    at last `metrics.json`.

    `combinations` of levels are measured besides all levels and each of them. Only the map of all
    levels is standardised.

    Returns:
        What `metrics.json` holds.
    """
    config = provenance.config
    labels = np.array([example.label for example in dataset.test])
    with timed(seconds, "evaluate"):
        heads = jax.jit(mapping.fold)(state.params, state.batch_stats)
        heads = standard.measured(networks, heads, dataset.train, config)
        normal = scoring.image_scores_of(networks, heads, dataset.held_out, config, "held out")
        maps, scores = _score(heads, dataset, networks, config, combinations)
        size = config.data.image_size
        masks = image_files.masks(dataset.test, size) if dataset.has_masks else None
        measured = {
            level: _measure(maps.get(level), scores[level], labels, masks)
            for level in tqdm(scores, desc="metrics", unit="map", disable=None)
        }
    standard.write(heads.standard, folder)
    _write_scores(folder / NORMAL_SCORES, dataset.held_out, normal)
    _write_scores(folder / "scores.csv", dataset.test, scores["fused"])
    panels = gallery.panels(heads, networks, dataset, scores["fused"], config)
    threshold = None if masks is None else gallery.segmentation_threshold(maps["fused"], masks)
    gallery.write(panels, threshold, provenance.category, folder)
    results = {
        **_measurements(measured, tuple(config.mapping.latent), combinations),
        "decisions": decisions(normal, scores["fused"], labels),
        "seconds": seconds,
        "counts": {
            "train": provenance.num_images,
            "held_out": len(dataset.held_out),
            "test_good": int((labels == 0).sum()),
            "test_anomalous": int(labels.sum()),
        },
        "step": int(state.step),
        **provenance.to_json(),
        "seed": config.seed,
    }
    files.write(folder / "metrics.json", (json.dumps(results, indent=2) + "\n").encode())
    return results


def evaluated_step(folder: Path) -> int | None:
    """The training step that the results in a run's folder are of; None without any."""
    path = folder / "metrics.json"
    return json.loads(path.read_text())["step"] if path.is_file() else None


def decisions(
    normal_scores: np.ndarray, scores: np.ndarray, labels: np.ndarray
) -> dict[str, Any] | None:
    """The threshold of the held-out images, and what it says of the test images: the part of the
    good ones (`false_positives`) and of the anomalous ones (`recall`) that exceed it. None if too
    few images were held out.
    """
    if len(normal_scores) < calibration.images_needed(FALSE_POSITIVE_RATE):
        return None
    threshold = calibration.threshold(normal_scores, FALSE_POSITIVE_RATE)
    over = scores > threshold.value
    return {
        **dataclasses.asdict(threshold),
        "false_positives": float(over[labels == 0].mean()),
        "recall": float(over[labels == 1].mean()),
    }


def _measurements(
    measured: dict[str, Metrics], levels: tuple[str, ...], combinations: Combinations
) -> dict[str, Any]:
    found = {name: dataclasses.asdict(metrics) for name, metrics in measured.items()}
    return {
        **found["fused"],
        "levels": {level: found[level] for level in levels},
        "combinations": {name: found[name] for name in map(joined, combinations)},
    }


def _write_scores(path: Path, examples: Sequence[Example], scores: np.ndarray) -> None:
    """Nine digits give back the float32 that they were."""
    table = io.StringIO()
    rows = ((e.path, f"{s:.9g}", e.label) for e, s in zip(examples, scores, strict=True))
    csv.writer(table, lineterminator="\n").writerows([("path", "score", "label"), *rows])
    files.write(path, table.getvalue().encode())


def joined(levels: Sequence[str]) -> str:
    """The name of a combination of levels."""
    return "+".join(levels)


def _score(
    heads: FoldedHeads,
    dataset: Dataset,
    networks: Networks,
    config: Config,
    combinations: Combinations,
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Maps `[N, H, W]` (only where there are masks) and image scores `[N]`, by what they are of:
    all levels (`fused`), one, or a combination.
    """
    maps: dict[str, list[np.ndarray]] = defaultdict(list)
    scores: dict[str, list[np.ndarray]] = defaultdict(list)
    parts = (*((level,) for level in config.mapping.latent), *combinations)
    for found in scoring.score_examples(networks, heads, dataset.test, config, "scoring"):
        some = {joined(c): {k: found.levels[k] for k in c} for c in parts}
        judged = {name: scoring.fuse(levels, config.scoring) for name, levels in some.items()}
        for name, one in {"fused": found, **judged}.items():
            scores[name].append(np.asarray(one.image_scores))
            if dataset.has_masks:
                maps[name].append(np.asarray(one.fused))
    stacked = {name: np.concatenate(batches) for name, batches in maps.items()}
    return stacked, {name: np.concatenate(batches) for name, batches in scores.items()}


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
