"""One category from end to end: features, training, checkpoint, evaluation, results."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
from pathlib import Path
from typing import Any

import jax

from pfm_jax import (
    datasets,
    features,
    pretrained,
    train,
)
from pfm_jax.cache import build_cache
from pfm_jax.checkpoint import Checkpoints, Provenance, check_same_run, versions
from pfm_jax.config import Config, validate
from pfm_jax.datasets import images as image_files
from pfm_jax.evaluate import evaluate, timed
from pfm_jax.features import Networks
from pfm_jax.files import cache_dir
from pfm_jax.train import TrainState
from pfm_jax.types import Dataset, InputError

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Sources:
    """Where things are.

    Attributes:
        data_dir: the folder of the categories, or an archive; None for a packaged data set.
        weights_dir: a folder of weights; None for the other places of `weight_file`.
    """

    data_dir: str | None = None
    weights_dir: str | None = None

    @property
    def data_path(self) -> Path | None:
        """`data_dir` as a path."""
        return Path(self.data_dir) if self.data_dir else None

    def resolved(self) -> Sources:
        """The same as absolute paths, `$PFM_JAX_WEIGHTS` looked up: good anywhere, at any time."""
        weights_dir = self.weights_dir or os.environ.get("PFM_JAX_WEIGHTS")
        places = (os.path.abspath(p) if p else None for p in (self.data_dir, weights_dir))
        return Sources(*places)


def load_networks(config: Config, sources: Sources) -> tuple[Networks, dict[str, str]]:
    """The two networks of a recipe and the fingerprint of each one's weights."""
    loaded = [
        pretrained.load(name, sources.weights_dir)
        for name in (config.networks.source, config.networks.target)
    ]
    return features.pair(*loaded), {w.backbone.name: w.fingerprint for w in loaded}


def train_categories(
    config: Config, sources: Sources, category: str, workdir: Path
) -> dict[str, dict[str, Any]]:
    """Trains and evaluates one category, or all that are found if `category` is `"all"`.

    All data sets are looked through before the first is trained on. A run that `workdir` holds
    already goes on from its last checkpoint; if it is at its end, it is evaluated again.

    Returns:
        Category -> what its `metrics.json` holds.

    Raises:
        InputError: a recipe, data, weights or a workdir that can't be used.
    """
    validate(config)
    sources, cache = sources.resolved(), cache_dir()
    chosen = datasets.categories(config.data.dataset, sources.data_path, category, cache)
    networks, weights = load_networks(config, sources)
    loaded = {n: datasets.load(config.data.dataset, sources.data_path, n, cache) for n in chosen}
    results = {}
    for name, dataset in loaded.items():
        provenance = Provenance(
            config=config,
            category=name,
            data=dataset.fingerprint,
            weights=weights,
            num_images=len(dataset.train),
            data_dir=sources.data_dir,
            weights_dir=sources.weights_dir,
            versions=versions(),
            device=str(jax.devices()[0].device_kind),
        )
        results[name] = train_category(provenance, dataset, networks, workdir / name)
    return results


def train_category(
    provenance: Provenance, dataset: Dataset, networks: Networks, folder: Path
) -> dict[str, Any]:
    """Trains (or resumes, or skips what is done), evaluates, writes `folder`; see `evaluate`."""
    seconds = _seconds_so_far(folder)
    log.info("%s: %d training images", provenance.category, provenance.num_images)
    with Checkpoints(folder / "checkpoints") as checkpoints:
        state = _fresh_state(provenance, networks)
        if old := checkpoints.provenance():
            check_same_run(old, provenance, folder)
            state = checkpoints.restore(state)
            log.info("%s: goes on from step %d", provenance.category, int(state.step))
        if state.step < train.num_steps(provenance.config.train, provenance.num_images):
            state = _fit(state, provenance, dataset, networks, checkpoints, seconds)
    return evaluate(state, provenance, dataset, networks, folder, seconds)


def _fit(
    state: TrainState,
    provenance: Provenance,
    dataset: Dataset,
    networks: Networks,
    checkpoints: Checkpoints,
    seconds: dict[str, float],
) -> TrainState:
    """Features and training; the features are gone when it returns."""
    config = provenance.config
    if dataset.has_masks and not image_files.masks(dataset.test, config.data.image_size).any():
        raise InputError(f"{provenance.category}: no mask marks a pixel, nothing can be measured")
    with timed(seconds, "features"):
        levels, size = tuple(config.mapping.latent), config.data.image_size
        cache = build_cache(networks, dataset.train, size, levels)
    with timed(seconds, "train"):
        state, losses = train.fit(
            state, cache, config, lambda state: checkpoints.save(state, provenance)
        )
    at_the_end = {level: f"{values[-50:].mean():.3e}" for level, values in losses.items()}
    log.info("%s: loss at the end %s", provenance.category, at_the_end)
    return state


def evaluate_category(workdir: Path, category: str, sources: Sources) -> dict[str, Any]:
    """The metrics of a trained run again, from its checkpoint; see `evaluate`.

    Args:
        workdir: that the run was trained in.
        category: the run's.
        sources: where data and weights are now; None: where they were.

    Raises:
        InputError: no such run, or other data or weights than it was trained with.
    """
    folder = workdir / category
    if not (folder / "checkpoints").is_dir():
        raise InputError(f"workdir={workdir}: no run of category {category!r} in it")
    with Checkpoints(folder / "checkpoints") as checkpoints:
        old = checkpoints.provenance()
        if old is None:
            raise InputError(f"{folder}: the run has no checkpoint yet; train it first")
        sources = Sources(
            sources.data_dir or old.data_dir, sources.weights_dir or old.weights_dir
        ).resolved()
        networks, weights = load_networks(old.config, sources)
        dataset = datasets.load(old.config.data.dataset, sources.data_path, category, cache_dir())
        now = dataclasses.replace(old, data=dataset.fingerprint, weights=weights)
        check_same_run(old, now, folder)
        state = checkpoints.restore(_fresh_state(old, networks))
    total = train.num_steps(old.config.train, old.num_images)
    if state.step < total:
        log.warning("%s: unfinished, at step %d of %d", category, int(state.step), total)
    return evaluate(state, old, dataset, networks, folder, _seconds_so_far(folder))


def _seconds_so_far(folder: Path) -> dict[str, float]:
    """What features and training took, where an earlier run in `folder` did them."""
    path = folder / "metrics.json"
    before = json.loads(path.read_text())["seconds"] if path.is_file() else {}
    return {phase: before.get(phase, 0.0) for phase in ("features", "train")}


def _fresh_state(provenance: Provenance, networks: Networks) -> TrainState:
    config = provenance.config
    levels = tuple(config.mapping.latent)
    shapes = features.feature_shapes(networks, config.data.image_size, levels)
    return train.init_state(config, shapes, provenance.num_images)
