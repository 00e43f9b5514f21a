"""The cost of each case beside its accuracy: a table, and accuracy against milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib.axis import Axis
from matplotlib.ticker import LogFormatter

from pfm_jax.sweeps import speed
from pfm_jax.sweeps.plan import Plan, read_json
from pfm_jax.sweeps.report import plots
from pfm_jax.sweeps.report.plots import Plot
from pfm_jax.sweeps.report.tables import MISSING, Table, called, case_cells, describe, percent
from pfm_jax.sweeps.results import Cell, Spread, over_categories


class Cost(NamedTuple):
    """Cost of a case; None where it was not measured.

    Attributes:
        accuracy: image AUROC, mean of the categories, over seeds.
        seconds: of training its run, mean over categories and seeds.
        milliseconds: per image, scored alone.
        kept: MiB of its model, without the networks.
        memory: MiB of the program that scores it, with all weights.
    """

    accuracy: Spread | None
    seconds: float | None
    milliseconds: float | None
    kept: float | None
    memory: float | None


def costs(plan: Plan, found: Sequence[Cell], workdir: Path) -> dict[str, Cost]:
    """Cost of each case of a sweep."""
    measured: dict[str, Cost] = {}
    for case in plan.cases:
        cells = case_cells(found, case)
        done = [read_json(c.folder / "metrics.json") for c in cells if c.metrics]
        phases = [metrics["seconds"] for metrics in done]
        spent = [own["train"] + own.get("memory", 0.0) for own in phases]
        scoring = speed.read(workdir, case)
        measured[case] = Cost(
            over_categories(cells, "image_auroc"),
            sum(spent) / len(spent) if spent else None,
            1000 / scoring.images_per_second if scoring else None,
            scoring.kept / 2**20 if scoring else None,
            scoring.bytes / 2**20 if scoring and scoring.bytes else None,
        )
    return measured


def table(plan: Plan, measured: dict[str, Cost]) -> Table:
    """Accuracy, seconds of training, milliseconds and memory of every case."""
    rows = []
    for case, cost in measured.items():
        spent = (cost.seconds, ".0f"), (cost.milliseconds, ".1f")
        numbers = *spent, (cost.kept, ".1f"), (cost.memory, ".0f")
        shown = [MISSING if value is None else format(value, form) for value, form in numbers]
        rows.append([case, describe(plan, case), percent(cost.accuracy), *shown])
    return Table(
        name="cost",
        title="Cost: time and memory",
        note=(
            "Image AUROC in percent, mean of the categories ± deviation over (seeds). Training:"
            " seconds for heads and memory of one category, its share where runs train together,"
            " with all levels of the run that measures the case; without the features, which cases"
            " share, but of methods that are fitted at once, with them. Scoring: one image at a"
            " time on this machine. Model: heads and memory, or what another method keeps of the"
            " images, without the networks; memory with all weights, as the compiler reports it."
        ),
        header=[
            *("case", "description", "image AUROC", "training (s)", "image (ms)"),
            *("model (MiB)", "memory (MiB)"),
        ],
        published=set(),
        rows=rows,
    )


def plot(plan: Plan, measured: dict[str, Cost]) -> Plot | None:
    """Plots image AUROC against milliseconds per image, with deviation over seeds."""
    figure = plots.make_figure(3.0 + 0.18 * len(measured))
    axis, words = figure.subplots(), []
    for index, (case, cost) in enumerate(measured.items()):
        if cost.accuracy is None or cost.milliseconds is None:
            continue
        accuracy, name = cost.accuracy, called(plan, case)
        plots.spread_points(axis, index, [cost.milliseconds], [accuracy], name)
        shown = f"{100 * accuracy.mean:.1f} at {cost.milliseconds:.1f} ms"
        words.append(f"{name}: {shown}")
    if not words:
        return None
    axis.set(xscale="log", xlabel="milliseconds per image", ylabel="image AUROC (%)")
    _label_log(axis.xaxis)
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower left", fontsize=8, frameon=False)
    return Plot("Image AUROC against milliseconds per image", plots.svg(figure), "; ".join(words))


def _label_log(axis: Axis) -> None:
    """Labels a logarithmic axis by plain numbers, even within a decade."""
    axis.set_major_formatter(LogFormatter())
    axis.set_minor_formatter(LogFormatter(minor_thresholds=(1, 0.5)))


def growth(plan: Plan, workdir: Path) -> Plot | None:
    """Plots images per second against the number of training images; None where no case depends on
    it. The others are drawn level."""
    measured = {case: speed.read(workdir, case) for case in plan.cases}
    known = {case: found for case, found in measured.items() if found}
    if not any(found.by_images for found in known.values()):
        return None
    figure = plots.make_figure(3.0 + 0.18 * len(known))
    axis, words = figure.subplots(), []
    for index, (case, found) in enumerate(known.items()):
        rates = found.by_images or dict.fromkeys(speed.SIZES, found.images_per_second)
        name = called(plan, case)
        axis.plot(list(rates), list(rates.values()), label=name, **plots.style(index))
        shown = ", ".join(f"{rate:.2g} with {count}" for count, rate in rates.items())
        words.append(f"{name}: {shown}")
    axis.set(xscale="log", yscale="log", xlabel="training images", ylabel="images per second")
    axis.set_xticks(speed.SIZES, map(str, speed.SIZES))
    axis.set_xticks([], minor=True)
    _label_log(axis.yaxis)
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower left", fontsize=8, frameon=False)
    title = "Images per second, one at a time, against the number of training images"
    return Plot(title, plots.svg(figure), "; ".join(words))
