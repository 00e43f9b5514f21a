"""Execution of a sweep plan, job by job.

A *job* is the runs of one category on one pair of networks, which share the features of the
training images (unless shots of them are drawn, seed by seed).

    WORKDIR/sweep.json                          the plan
    WORKDIR/RUN/seed_N/CATEGORY/                a run folder, or failed.json with the reason
    WORKDIR/logs/RUN/CATEGORY/log.txt           the log of a job
    WORKDIR/speed/CASE.json                     see `sweeps.speed`
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
from collections.abc import Sequence
from pathlib import Path

from pfm_jax.backbones.networks import Networks, load_networks
from pfm_jax.config import to_dict
from pfm_jax.evaluation.evaluate import joined
from pfm_jax.model import patches, tiles
from pfm_jax.runs import record
from pfm_jax.runs.features import CachedFeatures
from pfm_jax.runs.partition import Room, partition
from pfm_jax.runs.run import RunFolder, load_datasets, provenance, resolved
from pfm_jax.runs.train import train_together
from pfm_jax.sweeps import speed
from pfm_jax.sweeps.plan import Job, Plan, read_json, tells_what_is_done
from pfm_jax.system import files, mirror
from pfm_jax.training import cache
from pfm_jax.types import InputError, Sources

log = logging.getLogger(__name__)


def unfinished(plan: Plan, job: Job, workdir: Path) -> list[tuple[str, int]]:
    """Runs and seeds of a job without complete results."""
    return [
        (run, seed)
        for run in job.runs
        for seed in plan.seeds
        if not _is_done(plan, run, plan.folder(workdir, run, seed, job.category), seed)
    ]


def _is_done(plan: Plan, run: str, folder: Path, seed: int) -> bool:
    found = read_json(folder / "metrics.json")
    config = to_dict(dataclasses.replace(plan.configs[run], seed=seed))
    wanted = set(map(joined, plan.combinations(run)))
    return bool(found) and found["config"] == config and wanted <= set(found["combinations"])


def fail(
    plan: Plan,
    category: str,
    runs: Sequence[tuple[str, int]],
    workdir: Path,
    reason: str,
    missing: bool = False,
) -> None:
    """Records the failure of runs, by name and seed; `missing`: weights or data are absent."""
    for run, seed in runs:
        folder = plan.folder(workdir, run, seed, category)
        _write_failure(folder, reason, missing)


def _write_failure(folder: Path, reason: str, missing: bool = False) -> None:
    values = {"reason": reason, "missing": missing}
    files.write(folder / "failed.json", json.dumps(values).encode())


def run_job(plan: Plan, job: Job, sources: Sources, workdir: str | Path) -> None:
    """Completes a job in a workdir that may be remote.

    A failed run records its reason and does not stop the others.
    """
    with mirror.local_folder(workdir, tells_what_is_done, read_only=True) as folder:
        todo, speeds = unfinished(plan, job, folder), speed.unmeasured(plan, job, folder)
    if not todo and not speeds:
        return
    needed = {*todo, *(speed.needed_run(plan, case) for case in speeds)}
    runs = [f"{run}/seed_{seed}/{job.category}/" for run, seed in needed]
    own = (*runs, f"logs/{job.name}/")
    with mirror.local_folder(workdir, lambda name: name.startswith(own)) as folder:
        _run_job(plan, job, sources, folder, todo, speeds)


def _run_job(
    plan: Plan,
    job: Job,
    sources: Sources,
    workdir: Path,
    todo: Sequence[tuple[str, int]],
    speeds: Sequence[str],
) -> None:
    config, sources = plan.configs[job.runs[0]], resolved(sources)
    try:
        every = {level for run in job.runs for level in plan.configs[run].levels}
        networks, weights = load_networks(config.networks, every, sources.weights_dir)
        seeded = [dataclasses.replace(config, seed=seed) for seed in plan.seeds]
        loaded = load_datasets(seeded, job.category, sources)
    except InputError as error:
        fail(plan, job.category, todo, workdir, str(error), missing=True)
        return
    names = dict.fromkeys(name for name, _ in todo)
    levels = tuple(sorted({level for name in names for level in plan.configs[name].mapped}))
    cut = tiles.training_tiles(config.data)
    datasets, train = dict(zip(plan.seeds, loaded, strict=True)), loaded[0].train
    wanted = {patches.memory_spec(plan.configs[name]) for name in names} - {None}
    spec = wanted.pop() if len(wanted) == 1 else None
    features = functools.cache(lambda: cache.build_cache(networks, train, cut, levels, memory=spec))
    shared = None if config.data.shots else features  # shots differ from seed to seed
    for name in names:
        recipes = [dataclasses.replace(plan.configs[name], seed=s) for n, s in todo if n == name]
        runs = [
            RunFolder(
                plan.folder(workdir, name, recipe.seed, job.category),
                provenance(recipe, job.category, datasets[recipe.seed], weights, sources),
                datasets[recipe.seed],
                plan.combinations(name),
            )
            for recipe in recipes
        ]
        with record.logged(workdir / "logs" / job.name):
            parts = partition(runs, networks)
            for together in parts:
                _train(together, networks, Room.of(parts), shared, workdir)
    for case in speeds:
        speed.measure(plan, case, networks, workdir)


def _train(
    runs: list[RunFolder],
    networks: Networks,
    room: Room,
    features: CachedFeatures | None,
    workdir: Path,
) -> None:
    try:
        train_together(runs, networks, room, features)
    except Exception as error:  # the other runs of the job continue
        log.exception("%s", ", ".join(str(run.folder) for run in runs))
        reason = f"{type(error).__name__}: {error}".replace(f"{workdir}/", "")
        for run in runs:
            _write_failure(run.folder, reason)
        return
    for run in runs:
        (run.folder / "failed.json").unlink(missing_ok=True)
