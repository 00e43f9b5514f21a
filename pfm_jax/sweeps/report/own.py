"""A sweep's own results by category and case, whatever they are."""

from __future__ import annotations

from collections.abc import Sequence

from pfm_jax.metrics import NAMES
from pfm_jax.sweeps.plan import Plan
from pfm_jax.sweeps.report.tables import Table, case_cells, describe, percent
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
    best = set()
    for row, own in enumerate(spreads):
        known = [spread.mean for spread in own if spread]
        best |= {
            (row, 1 + column)
            for column, spread in enumerate(own)
            if len(known) > 1 and spread and spread.mean == max(known)
        }
    return Table(
        name=f"results_{metric}",
        title=NAMES[metric],
        note="Percent; mean ± deviation over (seeds) at the last step. The best of a row is bold.",
        header=["category", *plan.cases],
        published=set(),
        rows=[[name, *map(percent, own)] for name, own in zip(names, spreads, strict=True)],
        best=frozenset(best),
    )


def cases(plan: Plan) -> Table:
    """The cases of a sweep in words."""
    return Table(
        name="cases",
        title="Cases",
        note="Directions of mapping, networks, levels.",
        header=["case", "description"],
        published=set(),
        rows=[[case, describe(plan, case)] for case in plan.cases],
    )
