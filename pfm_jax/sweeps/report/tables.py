"""Tables of a report, and tables III to VII of the paper with the sweep's results beside them."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pfm_jax.config import DIRECTIONS, Config
from pfm_jax.metrics import NAMES, PAPER_METRICS
from pfm_jax.sweeps import speed
from pfm_jax.sweeps.plan import Case, Plan
from pfm_jax.sweeps.report.published import ABLATION, IMAGES_PER_SECOND, TABLES, Published
from pfm_jax.sweeps.results import Cell, Spread, over_categories, over_seeds
from pfm_jax.types import LEVELS, directions

MISSING = "missing"
TITLES = {"spade": "SPADE", "patchcore": "PatchCore", "padim": "PaDiM", "cnn_dict": "CNN_Dict"}
TITLES |= {"stfpm": "STFPM", "uninformed": "ST", "ae_ssim": "AE-SSIM", "vae": "VAE"}
"""Name of a baseline -> as papers write it."""
MVTEC_CATEGORIES = 15


class Table(NamedTuple):
    """Formatted table; the first entry of a row names it."""

    name: str  # of its file, without suffix
    title: str
    note: str  # caption with units and conditions
    header: list[str]
    published: set[int]  # indices of columns with published results
    rows: list[list[str]]
    best: frozenset[tuple[int, int]] = frozenset()  # row and column of the best of each row

    def to_csv(self) -> str:
        """CSV text, with published columns marked in the header."""
        header = [
            f"{name} (published)" if index in self.published and name != "published" else name
            for index, name in enumerate(self.header)
        ]
        return _csv([header, *self.rows])


def _csv(rows: Sequence[Sequence[Any]]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows(rows)
    return buffer.getvalue()


def percent(spread: Spread | None) -> str:
    """Formats mean, deviation and number of seeds as `97.5 ± 0.2 (3)`."""
    if spread is None:
        return MISSING
    deviation = "" if spread.count == 1 else f" ± {100 * spread.deviation:.1f}"
    return f"{100 * spread.mean:.1f}{deviation} ({spread.count})"


def best_of_rows(spreads: Sequence[Sequence[Spread | None]]) -> frozenset[tuple[int, int]]:
    """Row and column of the best of each row whose entries differ, after the row's name."""
    best = set()
    for row, own in enumerate(spreads):
        known = [spread.mean for spread in own if spread]
        best |= {
            (row, 1 + column)
            for column, spread in enumerate(own)
            if spread and min(known) < max(known) == spread.mean
        }
    return frozenset(best)


def describe(plan: Plan, case: str) -> str:
    """One-line description of a case: directions, networks, levels."""
    levels, config = plan.cases[case].levels, plan.configs[plan.cases[case].run]
    networks = config.networks
    if config.baseline is not None:
        network = f", {networks.source}" if config.levels else ""
        return f"{TITLES[config.baseline.method]}{network}{_limits(config)}"
    pair = f"{networks.source} and {networks.target}"
    pair += _limits(config)
    ways = {len(directions(level, config.mapping.directions)) for level in levels}
    kind = "mapping" if len(ways) > 1 else {1: "PFM", 2: "B-PFM"}[ways.pop()]
    if levels == LEVELS and kind == "B-PFM":
        return f"MB-PFM, {pair}"
    return f"{kind}, {pair}, {', '.join(levels)}"


def _limits(config: Config) -> str:
    """Words for a case that has random weights or few images."""
    shots = config.data.shots
    random = "" if config.networks.pretrained or not config.levels else ", random weights"
    return random + (f", {shots} {'shot' if shots == 1 else 'shots'}" if shots else "")


def called(plan: Plan, case: str) -> str:
    """A case's description; its name, where another case is described alike."""
    words = describe(plan, case)
    return words if sum(describe(plan, other) == words for other in plan.cases) == 1 else case


def comparable_cases(plan: Plan) -> list[str]:
    """Cases to compare with published methods: all levels, both directions, pretrained."""
    found: dict[Case, str] = {}
    for name, case in plan.cases.items():
        config = plan.configs[case.run]
        both = config.mapping.directions == DIRECTIONS
        known = config.networks.pretrained or not config.levels  # or none is seen
        if plan.is_whole(name) and both and known:
            found.setdefault(case, name)
    return list(found.values())


def case_cells(found: Sequence[Cell], case: str, category: str | None = None) -> list[Cell]:
    """Cells of a case, in all categories or one."""
    return [c for c in found if c.case == case and category in (None, c.category)]


def comparison(plan: Plan, found: Sequence[Cell], published: Published) -> Table:
    """Table III, IV or V, of the categories that the sweep has too."""
    ours, rows, spreads = comparable_cases(plan), [], []
    known = _published_categories(plan, published)
    for category in known:
        cells = [over_seeds(case_cells(found, case, category), published.metric) for case in ours]
        rows.append([category, *map(percent, cells), *_published(published, [category])])
        spreads.append(cells)
    same = [cell for cell in found if cell.category in known]
    means = [over_categories(case_cells(same, case), published.metric) for case in ours]
    rows.append([f"mean of {len(known)}", *map(percent, means), *_published(published, known)])
    spreads.append(means)
    header = ["category", *(f"measured: {called(plan, case)}" for case in ours)]
    header += _papers_first(published.methods)
    return Table(
        name=f"table_{published.number.lower()}_{published.metric}",
        title=f"Table {published.number}: {NAMES[published.metric]}",
        note=(
            "Percent; mean ± deviation over (seeds) at the last step. All means are of the"
            " categories above them."
        ),
        header=header,
        published=set(range(1 + len(ours), len(header))),
        rows=rows,
        best=best_of_rows(spreads),
    )


def _published_categories(plan: Plan, table: Published) -> list[str]:
    return [name for name in plan.categories if name in table.rows]


def _published(table: Published, categories: Sequence[str]) -> list[str]:
    """Published results, or their means: as published, if of all categories."""
    rows = [table.rows[name] for name in categories]
    if len(rows) == MVTEC_CATEGORIES:
        rows = [table.rows["average"]]
    columns = zip(*rows, strict=True)
    return _papers_first(
        ["-" if None in values else f"{sum(values) / len(values):.1f}" for values in columns]
    )


def _papers_first(columns: Sequence[str]) -> list[str]:
    """Moves the last column, the paper's own method, to the front, next to ours."""
    return [*columns[-1:], *columns[:-1]]


def ablation(plan: Plan, found: Sequence[Cell]) -> Table:
    """Table VII: ablation over every case of the sweep."""
    rows = []
    for case in plan.cases:
        ours = [over_categories(case_cells(found, case), metric) for metric in PAPER_METRICS]
        values = _ablation(case)
        theirs = [f"{value:.1f}" for value in values] if values else ["-"] * 3
        rows.append([case, describe(plan, case), *map(percent, ours), *theirs])
    names = [NAMES[metric] for metric in PAPER_METRICS]
    return Table(
        name="table_vii_ablation",
        title="Table VII: directions, levels and networks",
        note=(
            f"Percent, mean over {', '.join(plan.categories)}; ± deviation of it over (seeds)."
            f" Published: means of the {MVTEC_CATEGORIES} categories of MVTec AD, one seed."
        ),
        header=["case", "description", *names, *names],
        published={5, 6, 7},
        rows=rows,
    )


def _ablation(case: str) -> tuple[float, float, float] | None:
    """Published results of a case that is called `case_N`."""
    number = case.removeprefix("case_")
    return ABLATION.get(int(number)) if number.isdecimal() else None


def speeds(plan: Plan, workdir: Path) -> Table:
    """Table VI: images per second."""
    rows = []
    for case in plan.cases:
        found = speed.read(workdir, case)
        value = f"{found.images_per_second:.3g}" if found else MISSING
        rows.append([called(plan, case), value, "-"])
    rows += [[f"{name} (published)", "-", str(rate)] for name, rate in IMAGES_PER_SECOND.items()]
    return Table(
        name="table_vi_images_per_second",
        title="Table VI: images per second",
        note="One image at a time, from pixels to map. Published: on an NVIDIA GTX 1660.",
        header=["method", "this machine", "published"],
        published={2},
        rows=rows,
    )


def papers_tables(plan: Plan, found: Sequence[Cell], workdir: Path) -> list[Table]:
    """Tables III to VII, as far as the paper has the categories or the cases of the sweep."""
    comparisons = [
        comparison(plan, found, published)
        for published in TABLES
        if comparable_cases(plan) and _published_categories(plan, published)
    ]
    ablations = [ablation(plan, found)] if any(map(_ablation, plan.cases)) else []
    rates = [speeds(plan, workdir)] if comparisons or ablations else []
    return [*comparisons, *rates, *ablations]


def cells_csv(found: Sequence[Cell]) -> str:
    """CSV of all cells: metrics as fractions, bootstrap interval bounds, reason."""
    header = ["case", "category", "seed", *NAMES]
    for metric in PAPER_METRICS:
        header += [f"{metric}_low", f"{metric}_high"]
    rows: list[list[Any]] = [[*header, "reason"]]
    for cell in found:
        metrics = cell.metrics or {"intervals": {}}
        row = [cell.case, cell.category, cell.seed, *(metrics.get(name, "") for name in NAMES)]
        for metric in PAPER_METRICS:
            row += metrics["intervals"].get(metric, ("", ""))
        rows.append([*row, cell.reason])
    return _csv(rows)
