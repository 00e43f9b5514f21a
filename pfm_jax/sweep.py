"""A plan carried out, job by job, each run once.

A *job* is the runs of one category on one pair of networks: they share the features of the training
images.

    WORKDIR/sweep.json                          the plan
    WORKDIR/RUN/seed_N/CATEGORY/                what `launch.train` leaves, or failed.json: why not
    WORKDIR/speed/CASE.json                     images per second
"""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np

from pfm_jax import cache, files, mapping, record, scoring, tiles
from pfm_jax.config import replaced
from pfm_jax.evaluate import joined
from pfm_jax.features import Networks
from pfm_jax.group import Run, fresh_state, groups, train_group
from pfm_jax.plan import Job, Plan
from pfm_jax.run import Sources, load_dataset, load_networks, provenance
from pfm_jax.types import LEVELS, Dataset, InputError

log = logging.getLogger(__name__)


def unfinished(plan: Plan, job: Job, workdir: Path) -> list[tuple[str, int]]:
    """The runs and seeds of a job that have no results yet."""
    return [
        (run, seed)
        for run in job.runs
        for seed in plan.seeds
        if not _is_done(plan, run, plan.folder(workdir, run, seed, job.category), seed)
    ]


def _is_done(plan: Plan, run: str, folder: Path, seed: int) -> bool:
    if not (folder / "metrics.json").is_file():
        return False
    found = json.loads((folder / "metrics.json").read_text())
    config = dataclasses.asdict(dataclasses.replace(plan.configs[run], seed=seed))
    measured = set(map(joined, plan.combinations(run)))
    same = found["config"] == json.loads(json.dumps(config))
    return same and measured <= set(found["combinations"])


def fail(plan: Plan, job: Job, workdir: Path, reason: str, missing: bool = False) -> None:
    """Leaves the reason in the folder of every unfinished run of a job.

    `missing`: something that the sweep can't be blamed for was not there.
    """
    for run, seed in unfinished(plan, job, workdir):
        _fail(plan.folder(workdir, run, seed, job.category), reason, missing)


def _fail(folder: Path, reason: str, missing: bool) -> None:
    content = json.dumps({"reason": reason, "missing": missing})
    files.write(folder / "failed.json", content.encode())


def run_job(plan: Plan, job: Job, sources: Sources, workdir: Path) -> None:
    """Does what is unfinished of a job. A run that fails leaves its reason; the next goes on."""
    todo = unfinished(plan, job, workdir)
    if not todo and not _unmeasured_speeds(plan, job, workdir):
        return
    config, sources = plan.configs[job.runs[0]], sources.resolved()
    try:
        networks, weights = load_networks(config, sources)
        dataset = load_dataset(config, job.category, sources)
    except InputError as error:
        fail(plan, job, workdir, str(error), missing=True)
        return
    names = [run for run in job.runs if any(run == name for name, _ in todo)]
    latent = {level for run in names for level in plan.configs[run].mapping.latent}
    levels = tuple(level for level in LEVELS if level in latent)
    cut = tiles.training_tiles(config.data)
    features = functools.cache(lambda: cache.build_cache(networks, dataset.train, cut, levels))
    for name in names:
        runs = [
            Run(
                provenance(
                    dataclasses.replace(plan.configs[name], seed=seed),
                    *(job.category, dataset, weights, sources),
                ),
                dataset,
                plan.folder(workdir, name, seed, job.category),
                plan.combinations(name),
            )
            for run, seed in todo
            if run == name
        ]
        with record.logged(workdir):
            for group in groups(runs, networks):
                _train(group, networks, features)
    for case in _unmeasured_speeds(plan, job, workdir):
        measure_speed(plan, case, networks, dataset, workdir)


def _train(group: list[Run], networks: Networks, features: Any) -> None:
    try:
        train_group(group, networks, features)
    except Exception as error:  # whatever it is, the other runs of the job can go on
        log.exception("%s", ", ".join(str(run.folder) for run in group))
        for run in group:
            _fail(run.folder, f"{type(error).__name__}: {error}", missing=False)
        return
    for run in group:
        (run.folder / "failed.json").unlink(missing_ok=True)


def _unmeasured_speeds(plan: Plan, job: Job, workdir: Path) -> list[str]:
    """Cases of a job whose speed is not known; it is that of any category."""
    if job.category != plan.categories[0]:
        return []
    names = [name for name, case in plan.cases.items() if case.run in job.runs]
    return [name for name in names if not (workdir / "speed" / f"{name}.json").is_file()]


def measure_speed(
    plan: Plan, case: str, networks: Networks, dataset: Dataset, workdir: Path
) -> None:
    """Images per second of a case, scored one at a time, from pixels to map (Table VI)."""
    run, levels = plan.cases[case].run, plan.cases[case].levels
    config = plan.configs[run]
    config = replaced(config, {"mapping.latent": {k: config.mapping.latent[k] for k in levels}})
    state = fresh_state(config, networks, len(dataset.train))
    heads = jax.jit(mapping.fold)(state.params, state.batch_stats)
    image, seconds = np.zeros((1, *(config.data.image_size,) * 2, 3), np.uint8), []
    for _ in range(6):
        start = time.perf_counter()
        cut = tiles.scoring_tiles(config.data)
        scored = scoring.score_images(networks, heads, image, config.mapping, config.scoring, cut)
        scored.fused.block_until_ready()
        seconds.append(time.perf_counter() - start)
    found = {"images_per_second": 1 / float(np.median(seconds[1:]))}
    files.write(workdir / "speed" / f"{case}.json", json.dumps(found).encode())
