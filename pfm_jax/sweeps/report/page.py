"""Report of a sweep: one self-contained HTML page, and its tables as CSV."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image

from pfm_jax.evaluation import figures
from pfm_jax.metrics import NAMES
from pfm_jax.sweeps import results
from pfm_jax.sweeps.plan import Plan, read_json
from pfm_jax.sweeps.report import claims, cost, own, plots, tables
from pfm_jax.sweeps.results import Cell
from pfm_jax.system import files


def write(workdir: Path) -> Path:
    """Writes `report.html` (returned), a CSV per table and `cells.csv` into a sweep's folder.

    Raises:
        InputError: no sweep in the folder, or the folder can't be written.
    """
    plan = results.read_plan(workdir)
    found = results.cells(plan, workdir)
    costs = cost.costs(plan, found, workdir)
    ours = [*own.results(plan, found), own.cases(plan), cost.table(plan, costs)]
    papers = tables.papers_tables(plan, found, workdir)
    for table in (*ours, *papers):
        files.write(workdir / f"{table.name}.csv", table.to_csv().encode())
    files.write(workdir / "cells.csv", tables.cells_csv(found).encode())
    drawn = list(filter(None, (cost.plot(plan, costs), cost.growth(plan, workdir))))
    target = workdir / "report.html"
    files.write(target, html(plan, found, ours, papers, drawn).encode())
    return target


def html(
    plan: Plan,
    found: Sequence[Cell],
    ours: Sequence[tables.Table],
    papers: Sequence[tables.Table],
    cost_plots: Sequence[plots.Plot],
) -> str:
    """Renders the report as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    counted, *reasons = results.summary(found).splitlines()
    featured = _featured(plan, found)
    by_category = {c: [cell for cell in featured if cell.category == c] for c in plan.categories}
    first = [cells[0] for cells in by_category.values() if cells]
    return environment.get_template("page.html").render(
        base64=lambda text: base64.b64encode(text.encode()).decode(),
        plan=plan,
        summary=counted,
        reasons=reasons,
        ours=ours,
        papers=papers,
        claims=claims.claims(plan, found),
        cost_plots=cost_plots,
        figures=_figures(plan, found),
        gallery=dict(_gallery(plan, cell) for cell in first),
        histograms=list(filter(None, map(plots.scores, first))),
        curves=list(filter(None, map(plots.learning_curves, by_category.values()))),
    )


def _featured(plan: Plan, found: Sequence[Cell]) -> list[Cell]:
    """Finished cells of the featured case.

    It is of the mapping and pretrained if possible, with the most directions, then levels, then
    finished cells.
    """

    def rank(case: str) -> tuple[int, int, int, int]:
        config, levels = plan.configs[plan.cases[case].run], plan.cases[case].levels
        done = sum(cell.metrics is not None for cell in tables.case_cells(found, case))
        whole = plan.is_whole(case)
        directions = len(config.mapping.directions)
        mapped = config.baseline is None or not plan.mapping_cases
        first = config.networks.pretrained and whole and done > 0 and mapped
        return int(first), directions, len(levels), done

    return [c for c in tables.case_cells(found, max(plan.cases, key=rank)) if c.metrics]


def _figures(plan: Plan, found: Sequence[Cell]) -> dict[str, list[plots.Plot]]:
    drawn: dict[str, list[plots.Plot]] = {}
    for title, cases in plots.figure_cases(plan).items():
        for metric in ("image_auroc", "pixel_auroc"):
            name = f"{title.split(' (')[0]}, {NAMES[metric]}"
            if plot := plots.by_category(plan, found, cases, metric, name):
                drawn.setdefault(title, []).append(plot)
    return drawn


def _gallery(plan: Plan, cell: Cell) -> tuple[str, list[dict[str, Any]]]:
    """Title and pictures of a run; each picture has its `data`, a lossy WebP, as base64."""
    folder = cell.folder / "gallery"
    pictures = read_json(folder / "gallery.json")
    for index, picture in enumerate(pictures):
        with Image.open(folder / f"{index}.png") as image:
            content = figures.encode(np.asarray(image), "webp", quality=80)
        picture["data"] = base64.b64encode(content).decode()
    return f"{cell.category}: {tables.called(plan, cell.case)}, seed {cell.seed}", pictures
