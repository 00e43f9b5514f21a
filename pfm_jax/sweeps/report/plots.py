"""SVG plots of a sweep's cells for its report."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from pfm_jax.metrics import NAMES
from pfm_jax.runs import record
from pfm_jax.sweeps.plan import Plan
from pfm_jax.sweeps.report.tables import called, case_cells
from pfm_jax.sweeps.results import Cell, Spread, over_seeds

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8a8a00")
MARKERS = "osD^vPX*"
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pfm_jax",
    "font.size": 9,
    "font.family": "sans-serif",
}


class Plot(NamedTuple):
    """Caption, `<svg>` element and text alternative for screen readers."""

    title: str
    svg: str
    words: str


def svg(figure: Figure) -> str:
    """`<svg>` element of a figure."""
    buffer = io.StringIO()
    with mpl.rc_context(STYLE):
        FigureCanvasSVG(figure)
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def make_figure(height: float = 3.2) -> Figure:
    """An empty figure in the report's style, `height` in inches."""
    with mpl.rc_context(STYLE):
        return Figure(figsize=(5.4, height), layout="constrained")


def style(index: int) -> dict[str, Any]:
    """Colour and marker of the `index`-th case."""
    return {"color": COLOURS[index % len(COLOURS)], "marker": MARKERS[index % len(MARKERS)]}


def spread_points(
    axis: Axes, index: int, at: Sequence[float], spreads: Sequence[Spread], label: str
) -> None:
    """Draws spreads in percent, each at its place, in the style of the `index`-th case."""
    axis.ticklabel_format(axis="y", useOffset=False)
    axis.errorbar(
        at,
        [100 * s.mean for s in spreads],
        [0 if s.count == 1 else 100 * s.deviation for s in spreads],
        **style(index),
        linestyle="none",
        capsize=2,
        label=label,
    )


def by_category(
    plan: Plan, found: Sequence[Cell], cases: Sequence[str], metric: str, title: str
) -> Plot | None:
    """Plots a metric of some cases by category, with deviation over seeds (figures 7 to 9)."""
    figure = make_figure(3.0 + 0.18 * len(cases))
    axis, words = figure.subplots(), []
    for index, case in enumerate(cases):
        spreads = {c: over_seeds(case_cells(found, case, c), metric) for c in plan.categories}
        known = {c: s for c, s in spreads.items() if s is not None}
        if not known:
            continue
        at = [plan.categories.index(c) + 0.08 * (index - (len(cases) - 1) / 2) for c in known]
        spread_points(axis, index, at, list(known.values()), called(plan, case))
        values = ", ".join(f"{c} {100 * s.mean:.1f}" for c, s in known.items())
        words.append(f"{called(plan, case)}: {values}")
    if not words:
        return None
    count = len(plan.categories)
    axis.set_xticks(range(count), plan.categories, rotation=45 if count > 4 else 0)
    axis.set_xlim(-0.5, count - 0.5)
    axis.set_ylabel(f"{NAMES[metric]} (%)")
    axis.grid(axis="y", alpha=0.3)
    figure.legend(loc="outside lower left", fontsize=8, frameon=False)
    return Plot(title, svg(figure), "; ".join(words))


def scores(cell: Cell) -> Plot | None:
    """Plots score histograms of a run's good and anomalous test images."""
    path = cell.folder / "scores.csv"
    if not path.is_file():
        return None
    with path.open(newline="") as file:
        rows = [(float(row["score"]), int(row["label"])) for row in csv.DictReader(file)]
    kinds = [[score for score, label in rows if label == kind] for kind in (0, 1)]
    bins = np.histogram_bin_edges([score for score, _ in rows], 30)
    figure = make_figure(2.6)
    axis = figure.subplots()
    for values, name, colour in zip(kinds, ("good", "anomalous"), COLOURS, strict=False):
        axis.hist(values, bins.tolist(), color=colour, alpha=0.6, label=f"{name} ({len(values)})")
    axis.set(xlabel="image score", ylabel="test images")
    axis.legend(frameon=False)
    good, anomalous = (f"{np.median(values):.3f}" for values in kinds)
    words = f"median score of good images {good}, of anomalous ones {anomalous}"
    return Plot(f"{cell.category}, seed {cell.seed}", svg(figure), words)


def learning_curves(cells: Sequence[Cell]) -> Plot | None:
    """Plots training losses of one category's cells, one line per level and run."""
    figure, ends = make_figure(2.8), []
    axis, labelled = figure.subplots(), set()
    for cell in cells:
        lines = record.read_curve(cell.folder)
        for index, level in enumerate(lines[0]["loss"] if lines else ()):
            axis.plot(
                [line["step"] for line in lines],
                [line["loss"][level] for line in lines],
                color=COLOURS[index % len(COLOURS)],
                linewidth=1,
                label=None if level in labelled else level,
            )
            labelled.add(level)
            ends.append(f"{level}, seed {cell.seed}: {lines[-1]['loss'][level]:.2e} at the end")
    if not ends:
        return None
    axis.set(yscale="log", xlabel="step", ylabel="training loss")
    axis.grid(alpha=0.3)
    axis.legend(frameon=False)
    return Plot(f"{cells[0].category}, all seeds", svg(figure), "; ".join(ends))


def figure_cases(plan: Plan) -> dict[str, list[str]]:
    """Title of each figure 7 to 9 -> the cases that it compares, by pair of networks."""
    pairs: dict[str, list[str]] = {}
    cases = plan.mapping_cases
    for name, case in cases.items():
        networks = plan.configs[case.run].networks
        if networks.pretrained:
            pairs.setdefault(f"{networks.source}, {networks.target}", []).append(name)
    one = {n: len(plan.configs[c.run].mapping.directions) == 1 for n, c in cases.items()}
    found: dict[str, list[str]] = {}
    for pair, names in pairs.items():
        ways = [n for n in names if one[n]]
        levels = {plan.cases[n].levels for n in ways}
        both = [n for n in names if not one[n] and plan.cases[n].levels in levels]
        if ways and both:
            found[f"Figure 7: one direction and both ({pair})"] = [*ways, *both]
        by_levels = {plan.cases[n].levels: n for n in names if not one[n]}
        if len(by_levels) > 1:
            found[f"Figure 8: levels ({pair})"] = list(by_levels.values())
    whole = {case: n for n, case in cases.items() if plan.is_whole(n) and not one[n]}
    if len(whole) > 1:
        found["Figure 9: networks, and random weights"] = list(whole.values())
    return found
