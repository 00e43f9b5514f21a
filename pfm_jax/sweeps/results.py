"""Results of a sweep: the metrics of every cell, or the reason for their absence."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pfm_jax.evaluation.evaluate import joined
from pfm_jax.sweeps.plan import Plan, read_json
from pfm_jax.types import InputError


@dataclasses.dataclass(frozen=True, slots=True)
class Cell:
    """Result of one case, category and seed."""

    case: str
    category: str
    seed: int
    folder: Path  # of the run that measures the case
    metrics: dict[str, Any] | None  # fields of `types.Metrics` at the case's levels
    reason: str = ""  # for the absence of metrics
    missing: bool = False  # weights or data were absent, as opposed to a failure


@dataclasses.dataclass(frozen=True, slots=True)
class Spread:
    """Mean and sample standard deviation over seeds; the deviation of one value is NaN."""

    mean: float
    deviation: float
    count: int


def read_plan(workdir: Path) -> Plan:
    """Reads the plan of the sweep in `workdir`. Raises InputError if none exists."""
    path = workdir / "sweep.json"
    try:
        return Plan.from_json(json.loads(path.read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"workdir={workdir}: no sweep found ({path} can't be read: {error}); "
            "start one with launch.sweep"
        ) from error


def cells(plan: Plan, workdir: Path) -> list[Cell]:
    """Reads all cells of a sweep, ordered by case, category and seed."""
    return [
        _cell(plan, workdir, case, category, seed)
        for case in plan.cases
        for category in plan.categories
        for seed in plan.seeds
    ]


def _cell(plan: Plan, workdir: Path, case: str, category: str, seed: int) -> Cell:
    run = plan.cases[case].run
    folder = plan.folder(workdir, run, seed, category)
    cell = Cell(case, category, seed, folder, None, "not finished yet")
    if failure := read_json(folder / "failed.json"):
        return dataclasses.replace(cell, **failure)
    metrics = read_json(folder / "metrics.json")
    if metrics and not plan.is_whole(case):
        name = joined(plan.cases[case].levels)
        metrics = metrics["levels"].get(name) or metrics["combinations"].get(name)
    return dataclasses.replace(cell, metrics=metrics, reason="") if metrics else cell


def spread(values: Iterable[float | None]) -> Spread | None:
    """Mean and sample deviation, ignoring None; None without values."""
    known = [value for value in values if value is not None]
    if not known:
        return None
    deviation = float(np.std(known, ddof=1)) if len(known) > 1 else float("nan")
    return Spread(float(np.mean(known)), deviation, len(known))


def over_seeds(found: Sequence[Cell], metric: str) -> Spread | None:
    """Spread of a metric over cells that differ in seed."""
    return spread(cell.metrics.get(metric) for cell in found if cell.metrics)


def over_categories(found: Sequence[Cell], metric: str) -> Spread | None:
    """Spread over seeds of the mean over categories, for seeds with results in every category."""
    categories = {cell.category for cell in found}
    means = []
    for seed in sorted({cell.seed for cell in found}):
        own = [cell.metrics.get(metric) for cell in found if cell.seed == seed and cell.metrics]
        known = [value for value in own if value is not None]
        if len(known) == len(categories):
            means.append(float(np.mean(known)))
    return spread(means)


def _kind(cell: Cell) -> str:
    return "done" if cell.metrics else "missing" if cell.missing else "failed"


def failures(found: Sequence[Cell]) -> list[Cell]:
    """Cells without metrics for a reason other than absent weights or data."""
    return [cell for cell in found if _kind(cell) == "failed"]


def summary(found: Sequence[Cell]) -> str:
    """Formats the count of cells by state, then each distinct reason."""
    count = Counter(map(_kind, found))
    lines = [", ".join(f"{count[k]} {k}" for k in ("done", "missing", "failed")) + " cells"]
    reasons: dict[tuple[str, str], list[str]] = {}
    for cell in found:
        if not cell.metrics:
            cases = reasons.setdefault((_kind(cell), cell.reason), [])
            cases += [cell.case] * (cell.case not in cases)
    lines += [f"{k}: {', '.join(cases)}: {reason}" for (k, reason), cases in reasons.items()]
    return "\n".join(lines)
