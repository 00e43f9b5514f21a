"""A sweep's own results by category and case, whatever they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pfm_jax.config import to_dict
from pfm_jax.metrics import NAMES
from pfm_jax.sweeps.plan import Plan
from pfm_jax.sweeps.report.tables import Table, best_of_rows, case_cells, describe, percent
from pfm_jax.sweeps.results import Cell, over_categories, over_seeds


def results(plan: Plan, found: Sequence[Cell]) -> list[Table]:
    """Results by category and case, a table for each metric that was measured."""
    measured = [m for m in NAMES if any(c.metrics and c.metrics.get(m) is not None for c in found)]
    return [_of_metric(plan, found, metric) for metric in measured]


def _of_metric(plan: Plan, found: Sequence[Cell], metric: str) -> Table:
    several = len(plan.categories) > 1
    names = [*plan.categories, *[f"mean of {len(plan.categories)}"] * several]
    spreads = [
        [over_seeds(case_cells(found, case, name), metric) for case in plan.cases]
        for name in plan.categories
    ]
    if several:
        spreads.append([over_categories(case_cells(found, case), metric) for case in plan.cases])
    return Table(
        name=f"results_{metric}",
        title=NAMES[metric],
        note="",
        header=["category", *plan.cases],
        published=set(),
        rows=[[name, *map(percent, own)] for name, own in zip(names, spreads, strict=True)],
        best=best_of_rows(spreads),
    )


def cases(plan: Plan) -> Table:
    """The cases of a sweep in words."""
    own = _settings(plan)
    return Table(
        name="cases",
        title="Cases",
        note="Directions of mapping, networks, levels; and the settings in which cases differ.",
        header=["case", "description", "settings"],
        published=set(),
        rows=[[case, describe(plan, case), own[case]] for case in plan.cases],
    )


def _settings(plan: Plan) -> dict[str, str]:
    """Case -> the settings of its recipe that are not the same in all recipes of the sweep."""
    flat = {case: _flat("", to_dict(plan.recipe(case))) for case in plan.cases}
    keys = dict.fromkeys(key for one in flat.values() for key in one if key != "name")
    differing = [k for k in keys if len({repr(one.get(k)) for one in flat.values()}) > 1]
    return {
        name: ", ".join(f"{k}={own[k]}" for k in differing if k in own)
        for name, own in flat.items()
    }


def _flat(name: str, value: Any) -> dict[str, Any]:
    """Dotted key -> value of nested dictionaries."""
    if not isinstance(value, dict):
        return {name: value}
    nested = (_flat(f"{name}.{key}" if name else key, own) for key, own in value.items())
    return {key: own for one in nested for key, own in one.items()}
