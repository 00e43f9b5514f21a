"""Speed of the cases of a sweep, and how it depends on the number of training images.

WORKDIR/speed/CASE.json         images per second, memory
"""

from __future__ import annotations

import dataclasses
import json
import logging
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pfm_jax import baselines
from pfm_jax.backbones.networks import Networks
from pfm_jax.inference.detector import Detector, Record, assemble, score_batch
from pfm_jax.model import scoring
from pfm_jax.runs import record
from pfm_jax.sweeps.plan import Job, Plan, read_json
from pfm_jax.system import devices, files
from pfm_jax.training import cache

SIZES = (200, 500, 1000, 2000)
"""Numbers of training images that a method whose speed depends on them is measured at."""

log = logging.getLogger(__name__)


class Speed(NamedTuple):
    """Speed of a case, one image at a time.

    Attributes:
        kept: bytes of the model, without the networks: heads, or what a baseline keeps.
        bytes: memory of the program, weights included; None where the device does not tell.
        by_images: number of training images -> images per second, where it depends on it.
    """

    images_per_second: float
    kept: int
    bytes: int | None
    by_images: dict[int, float]


def read(workdir: Path, case: str) -> Speed | None:
    """Speed of a case; None if it was not measured, or by another version."""
    found = read_json(_path(workdir, case))
    if found is None or set(found) != set(Speed._fields):
        return None
    by_images = {int(count): rate for count, rate in found["by_images"].items()}
    return Speed(found["images_per_second"], found["kept"], found["bytes"], by_images)


def _path(workdir: Path, case: str) -> Path:
    return workdir / "speed" / f"{case}.json"


def unmeasured(plan: Plan, job: Job, workdir: Path) -> list[str]:
    """Cases of a job whose speed is to be measured, which is done on the first category only."""
    names = [name for name, case in plan.cases.items() if case.run in job.runs]
    missing = [name for name in names if read(workdir, name) is None]
    return missing if job.category == plan.categories[0] else []


def needed_run(plan: Plan, case: str) -> tuple[str, int]:
    """Run and seed whose detector is measured, if the case is of a baseline."""
    return plan.cases[case].run, plan.seeds[0]


def measure(plan: Plan, case: str, networks: Networks, workdir: Path) -> None:
    """Measures a case's images per second at batch size 1, from pixels to map (Table VI), and the
    memory of that program. Nothing is measured of a baseline that could not be fitted.
    """
    detector = _detector(plan, case, networks, workdir)
    if detector is None:
        return
    rate, nbytes = _rate(detector)
    kept = devices.tree_bytes(detector.model)
    found = Speed(rate, kept, nbytes, _by_images(detector, case))
    files.write(_path(workdir, case), json.dumps(found._asdict()).encode())


def _by_images(detector: Detector, case: str) -> dict[int, float]:
    """Number of training images -> images per second, where it depends on it and there is room."""
    method, rates = detector.config.baseline, {}
    if method is None or not baselines.grows(method):
        return {}
    for count in SIZES:
        times = count / detector.record.origin["num_images"]
        needed = round(times * devices.tree_bytes(detector.model))
        if cache.choose_place(needed) != "device":
            log.warning("%s: no room for what it keeps of %d images; not measured", case, count)
            continue
        grown = baselines.grown(detector.model, method, times)
        rates[count] = _rate(dataclasses.replace(detector, model=grown))[0]
    return rates


def _rate(detector: Detector) -> tuple[float, int | None]:
    """Images per second, one at a time, and bytes."""
    side = detector.config.data.image_size
    image, seconds = np.zeros((1, side, side, 3), np.uint8), []
    score = score_batch.lower(detector, image).compile()
    memory = score.memory_analysis()
    kinds = ("argument", "temp", "output")
    nbytes = memory and sum(getattr(memory, f"{kind}_size_in_bytes") for kind in kinds)
    for _ in range(6):
        start = time.perf_counter()
        score(detector, image).fused.block_until_ready()
        seconds.append(time.perf_counter() - start)
    return 1 / float(np.median(seconds[1:])), nbytes


def _detector(plan: Plan, case: str, networks: Networks, workdir: Path) -> Detector | None:
    """A detector as fast as any of a case: heads before training, or a fitted baseline."""
    config = plan.recipe(case)
    if config.baseline is None:
        return assemble(networks, scoring.untrained(networks, config), Record(config))
    run, seed = needed_run(plan, case)
    path = plan.folder(workdir, run, seed, plan.categories[0]) / record.DETECTOR
    return Detector.load(path, networks=networks) if path.is_file() else None
