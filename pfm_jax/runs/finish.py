"""The end of a run: what was trained becomes a detector, which is evaluated and written."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

from pfm_jax.backbones.networks import Networks
from pfm_jax.inference.detector import Model
from pfm_jax.runs import record
from pfm_jax.runs.fit import make_detector
from pfm_jax.runs.run import RunFolder, origin
from pfm_jax.system import devices, files
from pfm_jax.system.background import Later
from pfm_jax.types import InputError


def lock(run: RunFolder, locks: ExitStack) -> None:
    """Locks the folders of a run until the stack is closed. Raises InputError: they belong to a
    run on other categories, or are locked by another process."""
    for one in (run, *run.parts):
        locks.enter_context(files.locked(one.folder))
        record.check_trained_on(one.folder, one.provenance)


def finish(
    run: RunFolder, model: Model, networks: Networks, later: Later
) -> dict[Path, dict[str, Any]]:
    """Writes the detectors and the results of a trained run; returns folder -> results."""
    for part in run.parts:  # each category's share
        part.seconds.update({k: value / len(run.parts) for k, value in run.seconds.items()})
    found = {one.folder: _evaluate(one, model, networks, later) for one in run.evaluated}
    if run.parts:
        later(lambda: run.write_status("finished"))
    return found


def _evaluate(run: RunFolder, model: Model, networks: Networks, later: Later) -> dict[str, Any]:
    """Writes a detector, evaluates it, writes the results."""
    with record.timed(run.seconds, "evaluate"):
        parts = run.config, run.dataset.held_out, origin(run.provenance)
        detector = make_detector(networks, model, *parts, run.dataset.ignored)
    if devices.is_primary():
        detector.save(run.detector_path, networks=False)
    try:
        found, results = run.evaluate(detector)
    except InputError as error:
        kept = "training is done and kept; mend that and give the same command again"
        raise InputError(f"{error} ({kept})") from error

    def write() -> None:
        record.write_evaluation(run.folder, found, results)
        run.write_status("finished")

    later(write)
    return results
