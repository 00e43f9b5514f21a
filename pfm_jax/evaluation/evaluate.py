"""Evaluation of a detector on the test images of a data set."""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from tqdm import tqdm

from pfm_jax import metrics
from pfm_jax.config import Config, ScoringConfig
from pfm_jax.evaluation import bootstrap, device_metrics, gallery, spro
from pfm_jax.evaluation.figures import Panel
from pfm_jax.evaluation.truth import Truth, ground_truth
from pfm_jax.inference import calibration
from pfm_jax.inference.detector import Detector, score_batch
from pfm_jax.inference.streaming import score_examples
from pfm_jax.model import scoring
from pfm_jax.types import Dataset, Metrics, ScoreMaps

SEGMENTATION_RATE = 0.005  # fraction of normal pixels above the segmentation threshold (figure 6)
Combinations = Sequence[tuple[str, ...]]
Kind = dict[str, float]
"""Metrics by name, of the images of one kind of defect."""


@dataclasses.dataclass(frozen=True, slots=True)
class Evaluation:
    """Results of a detector on N test images.

    Attributes:
        metrics: metrics of the fused map, with bootstrap intervals.
        levels: level -> metrics of its map alone.
        combinations: name of a combination of levels -> its metrics.
        kinds: kind of defect -> metrics of its images against the good ones.
        paths, labels, scores: of the test images; labels `[N]` are 0 (good) or 1 (anomalous).
        decisions: threshold from held-out images, and the fractions of good (`false_positives`)
            and anomalous (`recall`) test images above it, and of those above it that are anomalous
            (`precision`), None if there are none; None with too few held-out images.
        panels: pictures of the most and the least anomalous test images.
        segmentation_threshold: score exceeded by `SEGMENTATION_RATE` of all normal pixels, for
            pictures; None without masks.
    """

    metrics: Metrics
    levels: dict[str, Metrics]
    combinations: dict[str, Metrics]
    kinds: dict[str, Kind]
    paths: tuple[str, ...]
    labels: np.ndarray
    scores: np.ndarray
    decisions: dict[str, Any] | None
    panels: list[Panel]
    segmentation_threshold: float | None

    def to_json(self) -> dict[str, Any]:
        """Metrics and decisions as nested dictionaries."""
        levels = {name: dataclasses.asdict(one) for name, one in self.levels.items()}
        combinations = {name: dataclasses.asdict(one) for name, one in self.combinations.items()}
        found = {**dataclasses.asdict(self.metrics), "levels": levels, "combinations": combinations}
        return {**found, "kinds": self.kinds, "decisions": self.decisions}


def evaluate(detector: Detector, dataset: Dataset, combinations: Combinations = ()) -> Evaluation:
    """Evaluates a detector on the test images of a data set.

    `combinations` of levels are measured in addition to each level and all of them. What the test
    images don't allow to measure is None.

    Raises:
        InputError: an unreadable image or mask, or a non-finite score.
    """
    levels, size = detector.config.maps, detector.config.data.image_size
    truth = ground_truth(dataset, size)
    maps, scores = _score(detector, dataset, combinations)
    measured, kinds = {}, {}
    for name in tqdm(scores, desc="metrics", unit="map", disable=None):
        kinds[name] = _kinds(maps.get(name), scores[name], truth)
        measured[name] = _measure(maps.get(name), scores[name], truth, kinds[name])
    threshold = None
    if truth.regions is not None:
        normal = maps["fused"][truth.regions.numbers == 0]
        threshold = float(np.quantile(normal, 1 - SEGMENTATION_RATE))
    return Evaluation(
        metrics=measured["fused"],
        levels={level: measured[level] for level in levels},
        combinations={name: measured[name] for name in map(joined, combinations)},
        kinds=kinds["fused"],
        paths=truth.paths,
        labels=truth.labels,
        scores=scores["fused"],
        decisions=decisions(detector.normal_scores, scores["fused"], truth.labels),
        panels=gallery.panels(detector, dataset, scores["fused"]),
        segmentation_threshold=threshold,
    )


def decisions(
    normal_scores: np.ndarray, scores: np.ndarray, labels: np.ndarray
) -> dict[str, Any] | None:
    """Applies the threshold of held-out images to test images; see `Evaluation.decisions`."""
    if len(normal_scores) < calibration.images_needed(calibration.DEFAULT_RATE):
        return None
    threshold = calibration.threshold(normal_scores, calibration.DEFAULT_RATE)
    over = scores > threshold.value

    def fraction(of: np.ndarray) -> float | None:
        return float(of.mean()) if of.size else None

    return {
        **dataclasses.asdict(threshold),
        "false_positives": fraction(over[labels == 0]),
        "recall": fraction(over[labels == 1]),
        "precision": fraction(labels[over]),
    }


def joined(levels: Sequence[str]) -> str:
    """Name of a combination of levels."""
    return "+".join(levels)


def apart(config: Config, combinations: Combinations) -> tuple[tuple[str, ...], ...]:
    """Combinations of maps that are measured: each by itself, and the given ones."""
    return (*((level,) for level in config.maps), *map(tuple, combinations))


class Judged(NamedTuple):
    """Maps `[B, H, W]` and image scores `[B]` by combination of levels, and `"fused"`."""

    maps: dict[str, Array]
    scores: dict[str, Array]

    @property
    def image_scores(self) -> Array:
        """Scores of the fused maps."""
        return self.scores["fused"]


@functools.partial(jax.jit, static_argnames=("parts", "config"))
def judge(
    found: ScoreMaps,
    parts: tuple[tuple[str, ...], ...],
    config: ScoringConfig,
    ignored: Array | None = None,
) -> Judged:
    """Fuses each combination of levels separately, beside the fused map of all."""
    every = {"fused": found}
    for names in parts:
        own = {name: found.levels[name] for name in names}
        every[joined(names)] = scoring.fuse(own, config, ignored=ignored)
    maps = {name: one.fused for name, one in every.items()}
    return Judged(maps, {name: one.image_scores for name, one in every.items()})


def _score(
    detector: Detector, dataset: Dataset, combinations: Combinations
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Maps `[N, H, W]`, if there are masks, and scores `[N]` by level, combination and "fused"."""
    maps: dict[str, list[np.ndarray]] = defaultdict(list)
    scores: dict[str, list[np.ndarray]] = defaultdict(list)
    parts = apart(detector.config, combinations)
    names = ("fused", *map(joined, parts))

    def judged(images: Any) -> Judged:
        return judge(
            score_batch(detector, images), parts, detector.config.scoring, detector.ignored
        )

    size = detector.config.data.image_size
    for found in score_examples(judged, dataset.test, size, "scoring"):
        for name, some in found.scores.items():
            scores[name].append(np.asarray(some))
            if dataset.has_masks:
                maps[name].append(np.asarray(found.maps[name]))
    stacked = {name: np.concatenate(batches) for name, batches in maps.items()}
    empty = np.zeros(0, np.float32)
    return stacked, {name: np.concatenate([empty, *scores[name]]) for name in names}


def _measure(
    maps: np.ndarray | None, scores: np.ndarray, truth: Truth, kinds: Mapping[str, Kind]
) -> Metrics:
    found: dict[str, float] = {}
    intervals, labels = {}, truth.labels
    if truth.both:
        found["image_auroc"] = metrics.image_auroc(scores, labels)
        found["image_ap"] = metrics.image_ap(scores, labels)
        found["image_f1_max"] = metrics.image_f1_max(scores, labels)
        intervals["image_auroc"] = bootstrap.image_interval(scores, labels)
    if maps is not None and truth.regions is not None:
        found |= _pixel_metrics(maps, truth.regions)._asdict()
        if truth.both:
            found["aupimo"] = metrics.aupimo(maps, truth.regions, labels)
            both = bootstrap.pixel_intervals(maps, truth.regions)
            intervals["pixel_auroc"], intervals["pro_auc"] = both
    if saturated := [one["spro_auc_05"] for one in kinds.values() if "spro_auc_05" in one]:
        found["spro_auc_05"] = float(np.mean(saturated))
    return Metrics(**found, intervals=intervals)


def _kinds(maps: np.ndarray | None, scores: np.ndarray, truth: Truth) -> dict[str, Kind]:
    """Metrics of each kind of defect against the good images; none without these."""
    found: dict[str, Kind] = {}
    kinds = sorted(set(truth.kinds[truth.labels == 1])) if truth.both else []
    for kind in kinds:
        (chosen,) = np.nonzero((truth.labels == 0) | (truth.kinds == kind))
        found[kind] = {"image_auroc": metrics.image_auroc(scores[chosen], truth.labels[chosen])}
        regions = [truth.saturated[index] for index in chosen] if truth.saturated else []
        if maps is not None and any(regions):
            found[kind]["spro_auc_05"] = spro.spro_auc(maps[chosen], regions)
    return found


def _pixel_metrics(maps: np.ndarray, regions: metrics.Regions) -> metrics.PixelMetrics:
    """`metrics.pixel_metrics` on an accelerator with room for it, else on the host."""
    fits = device_metrics.padded_size(maps.size) <= device_metrics.MOST_PIXELS
    on_device = jax.default_backend() != "cpu" and fits
    return (device_metrics if on_device else metrics).pixel_metrics(maps, regions)
