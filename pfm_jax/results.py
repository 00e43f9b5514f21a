"""What a sweep's folder holds: every cell's metrics, or why there are none."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pfm_jax.evaluate import joined
from pfm_jax.plan import Plan
from pfm_jax.types import InputError

METRICS = ("image_auroc", "pixel_auroc", "pro_auc")


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """One case on one category with one seed.

    Attributes:
        case, category, seed: which.
        folder: of the run that it is measured in.
        metrics: of `types.Metrics`, at the case's levels; None if there are none.
        reason: why not.
        missing: whether it could not be done for want of weights or data, else it failed.
    """

    case: str
    category: str
    seed: int
    folder: Path
    metrics: dict[str, Any] | None
    reason: str = ""
    missing: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class Spread:
    """Mean and (sample) standard deviation over seeds; NaN for the deviation of one value."""

    mean: float
    deviation: float
    count: int


def read_plan(workdir: Path) -> Plan:
    """That of the sweep in `workdir`. Raises InputError if there is none."""
    path = workdir / "sweep.json"
    try:
        return Plan.from_json(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"workdir={workdir}: no sweep in it ({path} can't be read: {error}); "
            "python -m launch.sweep makes one"
        ) from error


def cells(plan: Plan, workdir: Path) -> list[Cell]:
    """All of a sweep's, case by case."""
    return [
        _cell(plan, workdir, case, category, seed)
        for case in plan.cases
        for category in plan.categories
        for seed in plan.seeds
    ]


def _cell(plan: Plan, workdir: Path, case: str, category: str, seed: int) -> Cell:
    run, levels = plan.cases[case].run, plan.cases[case].levels
    folder = plan.folder(workdir, run, seed, category)
    if (folder / "failed.json").is_file():
        failure = json.loads((folder / "failed.json").read_text())
        return Cell(case, category, seed, folder, None, failure["reason"], failure["missing"])
    if not (folder / "metrics.json").is_file():
        return Cell(case, category, seed, folder, None, "not done yet")
    found = json.loads((folder / "metrics.json").read_text())
    if len(levels) == len(plan.configs[run].mapping.latent):
        return Cell(case, category, seed, folder, found)
    name = joined(levels)
    metrics = found["levels"].get(name) or found["combinations"].get(name)
    return Cell(case, category, seed, folder, metrics, "" if metrics else "not done yet")


def spread(values: Iterable[float | None]) -> Spread | None:
    """Of the values that there are; None if there are none."""
    there = [value for value in values if value is not None]
    if not there:
        return None
    deviation = float(np.std(there, ddof=1)) if len(there) > 1 else float("nan")
    return Spread(float(np.mean(there)), deviation, len(there))


def over_seeds(found: Sequence[Cell], metric: str) -> Spread | None:
    """Of a metric of cells that differ in their seed."""
    return spread(cell.metrics[metric] for cell in found if cell.metrics)


def over_categories(found: Sequence[Cell], metric: str) -> Spread | None:
    """Of each seed's mean over the categories; of the seeds that have them all."""
    categories = {cell.category for cell in found}
    means = []
    for seed in sorted({cell.seed for cell in found}):
        own = [cell.metrics[metric] for cell in found if cell.seed == seed and cell.metrics]
        if len(own) == len(categories) and None not in own:
            means.append(float(np.mean(own)))
    return spread(means)


def _kind(cell: Cell) -> str:
    return "done" if cell.metrics else "missing" if cell.missing else "failed"


def failures(found: Sequence[Cell]) -> list[Cell]:
    """Those that have no metrics, though nothing was missing."""
    return [cell for cell in found if _kind(cell) == "failed"]


def summary(found: Sequence[Cell]) -> str:
    """How many cells there are of each kind, and each reason once."""
    count = Counter(map(_kind, found))
    lines = [", ".join(f"{count[k]} {k}" for k in ("done", "missing", "failed")) + " cells"]
    reasons: dict[tuple[str, str], list[str]] = {}
    for cell in found:
        if not cell.metrics:
            cases = reasons.setdefault((_kind(cell), cell.reason), [])
            cases += [cell.case] * (cell.case not in cases)
    lines += [f"{k}: {', '.join(cases)}: {reason}" for (k, reason), cases in reasons.items()]
    return "\n".join(lines)
