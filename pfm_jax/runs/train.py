"""Categories and seeds from end to end: data and weights found, runs trained, results written."""

from __future__ import annotations

import dataclasses
import functools
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np

from pfm_jax import datasets
from pfm_jax.backbones.networks import Networks, load_networks
from pfm_jax.config import Config
from pfm_jax.recipes import validate
from pfm_jax.runs import learning, record
from pfm_jax.runs.baseline import fit_baselines
from pfm_jax.runs.features import CachedFeatures, extents, extract_features, own_candidates
from pfm_jax.runs.finish import finish, lock
from pfm_jax.runs.partition import Room, partition
from pfm_jax.runs.run import RunFolder, load_datasets, provenance, resolved
from pfm_jax.runs.unified import unify
from pfm_jax.system import devices, interrupts
from pfm_jax.system.background import Later, at_once, in_background
from pfm_jax.training import loop, memory
from pfm_jax.training.checkpoint import Checkpoints, check_same_run
from pfm_jax.training.step import TrainState
from pfm_jax.types import Dataset, InputError, Sources

log = logging.getLogger(__name__)


def train_categories(
    config: Config,
    sources: Sources,
    category: str,
    workdir: Path,
    seeds: Sequence[int] = (),
    *,
    unified: bool = False,
) -> dict[str, dict[str, Any]]:
    """Trains and evaluates one category, or all that are found if `category` is `"all"`.

    All data sets are checked before the first is trained on. A run that `workdir` holds already is
    resumed from its last checkpoint or, if it is finished, evaluated again. Runs train together as
    far as memory allows, each in the folder `category` of `workdir` or, if `seeds` are given in
    place of the recipe's one, in `seed_N/category`. A `unified` run trains one set of heads on the
    images of all categories, evaluated on each in `unified/category`.

    Returns the folder of each run in `workdir` -> the content of its `metrics.json`. Raises
    InputError: a recipe, data, weights or a workdir that can't be used.
    """
    if unified and category != "all":
        raise InputError(f"category={category}: a unified run is trained on all; give category=all")
    configs = {f"seed_{seed}": dataclasses.replace(config, seed=seed) for seed in seeds}
    for one in (config, *configs.values()):
        validate(one)
    sources = resolved(sources)
    chosen = datasets.categories(config.data.dataset, sources.data_path, category)
    networks, weights = load_networks(config.networks, config.levels, sources.weights_dir)
    recipes = configs or {"": config}
    loaded = {name: load_datasets([*recipes.values()], name, sources) for name in chosen}
    runs = [
        RunFolder(workdir / place / name, provenance(one, name, dataset, weights, sources), dataset)
        for name, found in loaded.items()
        for (place, one), dataset in zip(recipes.items(), found, strict=True)
    ]
    if unified:
        runs = unify([runs[index :: len(recipes)] for index in range(len(recipes))])
    results: dict[Path, dict[str, Any]] = {}
    with record.logged(workdir), _together() as stopping, in_background() as later:
        parts = partition(runs, networks)
        room = Room.of(parts)
        for together in parts:
            results |= train_together(together, networks, room, stopping=stopping, later=later)
    folders = [one.folder for run in runs for one in run.evaluated]
    return {str(folder.relative_to(workdir)): results[folder] for folder in folders}


def train_together(
    runs: Sequence[RunFolder],
    networks: Networks,
    room: Room,
    features: CachedFeatures | None = None,
    stopping: Callable[[], bool] | None = None,
    later: Later = at_once,
) -> dict[Path, dict[str, Any]]:
    """Trains (or resumes, or skips what is done) and evaluates one part of a `partition`.

    Extracts `features` if None are given. SIGTERM in training, or `stopping`, ends the process with
    exit code 0, after all runs are saved as far as they are. Results are written, and the folders
    unlocked, `later`.

    Returns folder -> the content of its `metrics.json`.
    """
    if not learning.is_trained(runs[0].config):
        return fit_baselines(runs, networks, later, stopping)
    locks = ExitStack()
    try:
        with ExitStack() as opened:
            runs = [_opened(run, locks, opened) for run in runs]
            trained = _trained(runs, networks, room, features, stopping)
            found: dict[Path, dict[str, Any]] = {}
            for run in runs:
                model = learning.model_of(run.config, *trained.pop(run.folder))
                found |= finish(run, model, networks, later)
            return found
    finally:
        later(locks.close)  # after what it still has to write


def _opened(run: RunFolder, locks: ExitStack, opened: ExitStack) -> RunFolder:
    """A run whose folder is locked and whose checkpoints are open until the stacks are closed."""
    lock(run, locks)
    checkpoints = opened.enter_context(Checkpoints(run.folder / "checkpoints"))
    seconds = record.seconds_so_far(run.folder)
    return dataclasses.replace(run, checkpoints=checkpoints, seconds=seconds)


def _trained(
    runs: Sequence[RunFolder],
    networks: Networks,
    room: Room,
    features: CachedFeatures | None,
    stopping: Callable[[], bool] | None,
) -> dict[Path, tuple[TrainState, np.ndarray | None]]:
    """Trains the runs that are not trained; folder -> state and memory."""
    states = {run.folder: _state(run, networks) for run in runs}
    for run in runs:
        run.write_status("running")
    todo = [run for run in runs if int(states[run.folder].step) < run.total_steps]
    seen: dict[Dataset, np.ndarray | None] = {}
    for step in sorted({int(states[run.folder].step) for run in todo}):
        some = [run for run in todo if int(states[run.folder].step) == step]
        extracted = functools.partial(extract_features, some, networks, features, room)
        own = [states.pop(run.folder) for run in some]
        try:
            done, candidates = _fit(some, own, extracted, room.runs, stopping)
        except InputError as error:
            folders = ", ".join(str(run.folder) for run in some)
            raise InputError(f"{folders}: {error}") from error
        states |= {run.folder: state for run, state in zip(some, done, strict=True)}
        seen |= {run.dataset: part for run, part in zip(some, candidates, strict=True)}
    memories: dict[Dataset, np.ndarray | None] = {}
    for run in runs:
        if run.dataset not in memories:  # the same for all seeds
            memories[run.dataset] = _memory(run, networks, seen.get(run.dataset), room)
    return {run.folder: (states[run.folder], memories[run.dataset]) for run in runs}


def _state(run: RunFolder, networks: Networks) -> TrainState:
    """State of a run: its last checkpoint, or fresh."""
    name, checkpoints = run.provenance.category, run.checkpoints
    assert checkpoints is not None
    num_images = run.provenance.num_images
    state = devices.replicate(learning.fresh_state(run.config, networks, num_images))
    log.info("%s: %d training images", name, num_images)
    if old := checkpoints.provenance():
        check_same_run(old, run.provenance, run.folder)
        state = checkpoints.restore(state)
        log.info("%s: resumed at step %d", name, int(state.step))
    elif record.about(run.folder).get("status") == "finished":  # perhaps of another method
        check_same_run(record.read_run(run.folder), run.provenance, run.folder)
    record.truncate_curve(run.folder, int(state.step))
    if int(state.step) < run.total_steps and devices.is_primary():
        for one in run.evaluated:
            one.detector_path.unlink(missing_ok=True)
    return state


def _memory(
    run: RunFolder, networks: Networks, candidates: np.ndarray | None, room: Room
) -> np.ndarray | None:
    """Memory of a run, if its recipe has one; candidates are extracted if there are none."""
    if not run.config.scoring.memory:
        return None
    try:
        with record.timed(run.seconds, "memory"):
            if candidates is None:
                candidates = learning.candidates_of(run.config, networks, run.dataset.train)
            return memory.fit(candidates, room.candidates)
    except InputError as error:
        raise InputError(f"{run.folder}: {error}") from error


@contextmanager
def _together() -> Iterator[Callable[[], bool] | None]:
    """Defers SIGTERM where there are several processes, which would wait for one that ends alone.

    Yields what `train_together` takes.
    """
    if devices.process_count() == 1:
        yield None
        return
    with interrupts.deferred() as stopping:
        yield stopping


def _fit(
    runs: Sequence[RunFolder],
    states: list[TrainState],
    features: CachedFeatures,
    room: int,
    stopping: Callable[[], bool] | None,
) -> tuple[list[TrainState], list[np.ndarray | None]]:
    """Extracts features and trains runs at the same step; returns candidates for their
    memories, too. The other features are freed on return.
    """

    def save(number: int, state: TrainState, losses: dict[str, np.ndarray]) -> None:
        run = runs[number]
        assert run.checkpoints is not None
        record.append_curve(run.folder, int(state.step), losses)
        run.checkpoints.save(state, run.provenance)

    spent: dict[str, float] = {}
    with record.timed(spent, "features"):
        cached = features()
    deferred = nullcontext(stopping) if stopping else interrupts.deferred()
    with record.timed(spent, "train"), deferred as stopping:
        own = devices.replicate(extents(runs))
        # The states are in no variable, so that their buffers are freed as training begins.
        placed = (dataclasses.replace(states.pop(0), extent=extent) for extent in own)
        done, losses = loop.train([*placed], cached, runs[0].problem, save, stopping, room)
    at_the_end = {level: f"{values[:, -50:].mean():.3e}" for level, values in losses.items()}
    names = ", ".join(dict.fromkeys(run.provenance.category for run in runs))
    log.info("%s: loss at the end %s", names, at_the_end)
    for run in runs:
        for phase, value in spent.items():  # each run's share
            run.seconds[phase] += value / len(runs)
        run.write_status("running")
    if any(int(state.step) < run.total_steps for state, run in zip(done, runs, strict=True)):
        sys.exit(0)
    return done, own_candidates(runs, cached)
