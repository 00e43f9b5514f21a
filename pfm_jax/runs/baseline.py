"""Runs of baselines: fitted at once, without checkpoints."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pfm_jax import baselines
from pfm_jax.backbones.networks import Networks
from pfm_jax.baselines.features import Memory
from pfm_jax.inference.detector import Detector
from pfm_jax.runs import record
from pfm_jax.runs.finish import finish, lock
from pfm_jax.runs.run import RunFolder
from pfm_jax.system import devices
from pfm_jax.system.background import Later
from pfm_jax.training.checkpoint import check_same_run
from pfm_jax.types import InputError


def fit_baselines(
    runs: Sequence[RunFolder],
    networks: Networks,
    later: Later,
    stopping: Callable[[], bool] | None = None,
) -> dict[Path, dict[str, Any]]:
    """Fits a baseline for each run, or loads what is fitted, and evaluates it.

    Results are written, and the folders unlocked, `later`. Before each run, `stopping` ends the
    process with exit code 0.

    Returns folder -> the content of its `metrics.json`. Raises InputError: a folder of another run,
    or images that can't be used.
    """
    locks = ExitStack()
    found: dict[Path, dict[str, Any]] = {}
    try:
        for run in runs:
            if stopping and stopping():
                sys.exit(0)
            lock(run, locks)
            model = _model(run, networks)
            devices.barrier("fitted")  # all have seen whether it was
            run.write_status("running")
            found |= finish(run, model, networks, later)
    finally:
        later(locks.close)
    return found


def _model(run: RunFolder, networks: Networks) -> Memory:
    """Loads the model of a run that has been fitted before, or fits one."""
    before = record.about(run.folder)
    if before:
        check_same_run(record.read_run(run.folder), run.provenance, run.folder)
    fitted = run.evaluated[0].detector_path
    if before and fitted.is_file():
        run.seconds.update(record.seconds_so_far(run.folder))
        model: Memory = Detector.load(fitted, networks=networks).model
        return model
    run.write_status("running")
    try:
        with record.timed(run.seconds, "train"):
            return baselines.fit(networks, run.dataset.train, run.config)
    except InputError as error:
        raise InputError(f"{run.folder}: {error}") from error
