"""Runs that train together: which, and each from its last checkpoint to its results."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pfm_jax import cache, files, history, loop, memory, record, sharding, tiles, train
from pfm_jax import images as image_files
from pfm_jax.cache import FeatureCache
from pfm_jax.checkpoint import Checkpoints, Provenance, check_same_run
from pfm_jax.config import Config
from pfm_jax.evaluate import Combinations, evaluate, timed
from pfm_jax.features import Networks, feature_shapes
from pfm_jax.train import TrainState
from pfm_jax.types import Dataset, InputError

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Run:
    """One run: what it is made from, its images, its folder, and what else is measured of it."""

    provenance: Provenance
    dataset: Dataset
    folder: Path
    combinations: Combinations = ()


def groups(runs: Sequence[Run], networks: Networks) -> list[list[Run]]:
    """Which runs train together: of data sets of as many images, as many as there is room for.

    A run needs room for its state and twice more while it trains, a data set for its features. On
    a CPU only the seeds of one category share a group: arithmetic is the limit there, and more
    features in memory gain nothing.
    """
    config = runs[0].provenance.config
    levels, cut = tuple(config.mapping.latent), tiles.training_tiles(config.data)
    room, on_cpu = cache.SHARE * memory.free_on_device(), jax.default_backend() == "cpu"
    state = 3 * memory.tree_bytes(jax.eval_shape(lambda: fresh_state(config, networks, 1)))
    image = memory.tree_bytes(cache.cache_shapes(networks, 1, cut, levels))
    found: list[list[Run]] = []
    for run in sorted(runs, key=lambda run: run.provenance.num_images):
        group = [*found[-1], run] if found else [run]
        categories = {run.provenance.category for run in group}
        sizes = {run.provenance.num_images for run in group}
        need = len(group) * state + len(categories) * max(sizes) * image
        alike = len(sizes) == 1 and (len(categories) == 1 or not on_cpu)
        if found and alike and need <= room:
            found[-1] = group
        else:
            found.append([run])
    return found


def train_group(
    runs: Sequence[Run],
    networks: Networks,
    features: Callable[[], FeatureCache] | None = None,
) -> dict[Path, dict[str, Any]]:
    """Trains together (or resumes, or skips what is done), evaluates, writes the runs' folders.

    Args:
        runs: of `groups`.
        networks: the frozen ones.
        features: gives those of the runs' training images, if they are kept elsewhere.

    Returns:
        Folder -> what `evaluate` returns.
    """
    seconds = {run.folder: seconds_so_far(run.folder) for run in runs}
    with ExitStack() as stack:
        for run in runs:
            stack.enter_context(files.locked(run.folder))
        checkpoints = {
            run.folder: stack.enter_context(Checkpoints(run.folder / "checkpoints")) for run in runs
        }
        states = {run.folder: _state(run, networks, checkpoints[run.folder]) for run in runs}
        for run in runs:
            record.write(run.folder, run.provenance, "running", seconds[run.folder])
        todo = [run for run in runs if int(states[run.folder].step) < _total(run)]
        for step in sorted({int(states[run.folder].step) for run in todo}):
            some = [run for run in todo if int(states[run.folder].step) == step]
            try:
                states |= _fit(some, states, networks, checkpoints, seconds, features)
            except InputError as error:
                folders = ", ".join(str(run.folder) for run in some)
                raise InputError(f"{folders}: {error}") from error
        return {run.folder: _finish(run, states, networks, seconds) for run in runs}


def _total(run: Run) -> int:
    return total_steps(run.provenance.config, run.provenance.num_images)


def _finish(
    run: Run,
    states: dict[Path, TrainState],
    networks: Networks,
    seconds: dict[Path, dict[str, float]],
) -> dict[str, Any]:
    folder, own = run.folder, seconds[run.folder]
    parts = states[folder], run.provenance, run.dataset, networks, folder, own
    results = evaluate(*parts, run.combinations)
    record.write(folder, run.provenance, "finished", own)
    return results


def _state(run: Run, networks: Networks, checkpoints: Checkpoints) -> TrainState:
    """Where a run is: at its last checkpoint, or fresh."""
    name, num_images = run.provenance.category, run.provenance.num_images
    state = sharding.everywhere(fresh_state(run.provenance.config, networks, num_images))
    log.info("%s: %d training images", name, num_images)
    if old := checkpoints.provenance():
        check_same_run(old, run.provenance, run.folder)
        state = checkpoints.restore(state)
        log.info("%s: goes on from step %d", name, int(state.step))
    history.cut(run.folder, int(state.step))
    return state


def _fit(
    runs: Sequence[Run],
    states: dict[Path, TrainState],
    networks: Networks,
    checkpoints: dict[Path, Checkpoints],
    seconds: dict[Path, dict[str, float]],
    features: Callable[[], FeatureCache] | None,
) -> dict[Path, TrainState]:
    """Features and training of runs at the same step; the features are gone when it returns."""
    config = runs[0].provenance.config
    levels, cut = tuple(config.mapping.latent), tiles.training_tiles(config.data)
    categories = {run.provenance.category: run.dataset for run in runs}
    for name, dataset in categories.items():
        if dataset.has_masks and not image_files.masks(dataset.test, cut.image).any():
            raise InputError(f"{name}: no mask marks a pixel, nothing can be measured")
    spent: dict[str, float] = {}
    with timed(spent, "features"):
        if features:
            rows = cache.at_levels(features(), levels)
        else:
            images = [example for dataset in categories.values() for example in dataset.train]
            rows = cache.build_cache(networks, images, cut, levels, num_datasets=len(categories))

    def save(first: int, some: list[TrainState], losses: dict[str, np.ndarray]) -> None:
        for index, state in enumerate(some):
            own = {level: values[index] for level, values in losses.items()}
            run = runs[first + index]
            history.append(run.folder, int(state.step), own)
            checkpoints[run.folder].save(state, run.provenance)
        memory.release()

    with timed(spent, "train"):
        which = [jnp.int32(list(categories).index(run.provenance.category)) for run in runs]
        done, losses = loop.fit(
            [  # in no variable: their buffers go as training begins
                dataclasses.replace(states.pop(run.folder), dataset=index)
                for run, index in zip(runs, which, strict=True)
            ],
            rows,
            config,
            save,
        )
    at_the_end = {level: f"{values[:, -50:].mean():.3e}" for level, values in losses.items()}
    log.info("%s: loss at the end %s", ", ".join(categories), at_the_end)
    for run in runs:
        for phase, value in spent.items():  # each run's share
            seconds[run.folder][phase] += value / len(runs)
    return {run.folder: state for run, state in zip(runs, done, strict=True)}


def seconds_so_far(folder: Path) -> dict[str, float]:
    """What features and training took, where an earlier run in `folder` did them."""
    path = folder / "metrics.json"
    before = json.loads(path.read_text())["seconds"] if path.is_file() else {}
    return {phase: before.get(phase, 0.0) for phase in ("features", "train")}


def _num_tiles(config: Config, num_images: int) -> int:
    """A tile is an image to the training."""
    return num_images * len(tiles.corners(tiles.training_tiles(config.data)))


def total_steps(config: Config, num_images: int) -> int:
    """Of a run on so many images."""
    return train.num_steps(config.train, _num_tiles(config, num_images))


def fresh_state(config: Config, networks: Networks, num_images: int) -> TrainState:
    """A run on so many images before its first step."""
    levels, cut = tuple(config.mapping.latent), tiles.training_tiles(config.data)
    shapes = feature_shapes(networks, cut.size, levels)
    return train.init_state(config, shapes, _num_tiles(config, num_images))
