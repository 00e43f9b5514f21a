"""Report of a sweep: one self-contained HTML page, and its tables as CSV."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from pfm_jax.sweeps import results
from pfm_jax.sweeps.plan import Plan
from pfm_jax.sweeps.report import claims, plots, tables
from pfm_jax.sweeps.results import Cell
from pfm_jax.system import files

FIGURE_METRICS = ("image_auroc", "pixel_auroc")


def write(workdir: Path) -> Path:
    """Writes `report.html`, a CSV per table and `cells.csv` into a sweep's folder.

    Returns:
        Path of `report.html`.

    Raises:
        InputError: no sweep in the folder, or the folder can't be written.
    """
    plan = results.read_plan(workdir)
    found = results.cells(plan, workdir)
    shown = tables.all_tables(plan, found, workdir)
    for table in shown:
        files.write(workdir / f"{table.name}.csv", table.to_csv().encode())
    files.write(workdir / "cells.csv", tables.cells_csv(found).encode())
    target = workdir / "report.html"
    files.write(target, html(plan, found, shown).encode())
    return target


def html(plan: Plan, found: Sequence[Cell], shown: Sequence[tables.Table]) -> str:
    """Renders the report as HTML."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    counted, *reasons = results.summary(found).splitlines()
    whole = _featured(plan, found)
    return environment.get_template("page.html").render(
        plan=plan,
        summary=counted,
        reasons=reasons,
        tables=shown,
        claims=claims.claims(plan, found),
        figures=_figures(plan, found),
        gallery=_galleries(plan, whole),
        histograms=_histograms(whole),
        curves=_curves(plan, whole),
    )


def _featured(plan: Plan, found: Sequence[Cell]) -> list[Cell]:
    """Finished cells of the featured case.

    It is pretrained if possible, with the most directions, then levels, then finished cells.
    """

    def rank(case: str) -> tuple[int, int, int, int]:
        config, levels = plan.configs[plan.cases[case].run], plan.cases[case].levels
        done = sum(cell.metrics is not None for cell in tables.case_cells(found, case))
        whole = len(levels) == len(config.mapping.latent)
        directions = len(config.mapping.directions)
        return int(config.networks.pretrained and whole and done > 0), directions, len(levels), done

    return [c for c in tables.case_cells(found, max(plan.cases, key=rank)) if c.metrics]


def _figures(plan: Plan, found: Sequence[Cell]) -> dict[str, list[plots.Plot]]:
    figures: dict[str, list[plots.Plot]] = {}
    for title, cases in plots.figure_cases(plan).items():
        for metric in FIGURE_METRICS:
            name = f"{title.split(' (')[0]}, {tables.METRIC_NAMES[metric]}"
            if plot := plots.by_category(plan, found, cases, metric, name):
                figures.setdefault(title, []).append(plot)
    return figures


def _first_seeds(cells: Sequence[Cell]) -> list[Cell]:
    """First cell of each category."""
    return list({cell.category: cell for cell in reversed(cells)}.values())[::-1]


def _galleries(plan: Plan, cells: Sequence[Cell]) -> dict[str, list[dict[str, Any]]]:
    galleries = {}
    for cell in _first_seeds(cells):
        folder = cell.folder / "gallery"
        listed = json.loads((folder / "gallery.json").read_text())
        title = f"{cell.category}: {tables.describe(plan, cell.case)}, seed {cell.seed}"
        galleries[title] = [
            {**picture, "data": _webp(folder / f"{index}.png")}
            for index, picture in enumerate(listed)
        ]
    return galleries


def _webp(path: Path) -> str:
    """Base64 of an image file, recompressed as lossy WebP."""
    buffer = io.BytesIO()
    with Image.open(path) as image:
        image.save(buffer, "webp", quality=80)
    return base64.b64encode(buffer.getvalue()).decode()


def _histograms(cells: Sequence[Cell]) -> list[plots.Plot]:
    drawn = (plots.scores(c, f"{c.category}, seed {c.seed}") for c in _first_seeds(cells))
    return [plot for plot in drawn if plot]


def _curves(plan: Plan, cells: Sequence[Cell]) -> list[plots.Plot]:
    drawn = (
        plots.learning_curves(
            [c for c in cells if c.category == category], f"{category}, all seeds"
        )
        for category in plan.categories
    )
    return [plot for plot in drawn if plot]
