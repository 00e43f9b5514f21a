"""Parts of a report: spreads, published tables, a folder with a sweep in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pfm_jax.config import Config, MappingConfig, NetworksConfig, SweepConfig
from pfm_jax.sweeps import results
from pfm_jax.sweeps.plan import Plan, make_plan
from pfm_jax.sweeps.report import own, page, published, tables
from pfm_jax.sweeps.results import Cell, Spread
from pfm_jax.types import DIRECTIONS, LEVELS, InputError
from tests.synthetic import small_config


def test_spreads_are_over_seeds() -> None:
    def cell(category: str, seed: int, value: float | None) -> Cell:
        metrics = None if value is None else {"image_auroc": value}
        return Cell("a", category, seed, Path(), metrics)

    some = [cell("x", 0, 0.5), cell("x", 1, 0.7), cell("y", 0, 0.9), cell("y", 1, None)]
    assert results.over_seeds(some[:2], "image_auroc") == pytest.approx(
        Spread(0.6, np.std([0.5, 0.7], ddof=1), 2)
    )
    whole = results.over_categories(some, "image_auroc")
    assert whole is not None
    assert (whole.mean, whole.count) == (pytest.approx(0.7), 1), "seed 1 lacks a category"
    assert results.over_seeds([some[3]], "image_auroc") is None
    assert tables.percent(None) == "missing"


@pytest.mark.parametrize("table", published.TABLES, ids=lambda t: t.number)
def test_published_averages_are_those_of_the_rows(table: published.Published) -> None:
    """A slip in a row would move its column's mean away from the paper's."""
    for index, method in enumerate(table.methods):
        values = [row[index] for name, row in table.rows.items() if name != "average"]
        there = [value for value in values if value is not None]
        if len(there) == 15:
            assert np.mean(there) == pytest.approx(table.rows["average"][index], abs=0.51), method


def test_a_folder_without_a_sweep_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"sweep\.json"):
        page.write(tmp_path)


def made_plan(names: dict[str, dict], categories: tuple[str, ...]) -> Plan:
    config = SweepConfig("made", small_config(), names)
    return make_plan(config, categories, (0, 1))


def cells_of(plan: Plan, value: Callable[[str, str, int], float | None]) -> list[Cell]:
    """A cell of every case, category and seed, with one metric."""
    return [
        Cell(case, category, seed, Path(), {"image_auroc": value(case, category, seed)})
        for case in plan.cases
        for category in plan.categories
        for seed in (0, 1)
    ]


def test_own_results_come_first_with_the_best_of_each_row() -> None:
    plan = made_plan({"a": {}, "b": {"train.steps": 9}}, ("bolts", "nuts"))
    values = {("a", "bolts"): 0.9, ("b", "bolts"): 0.8, ("a", "nuts"): 0.5, ("b", "nuts"): 0.7}
    found = cells_of(plan, lambda case, category, seed: values[case, category] + 0.01 * seed)
    (table,) = own.results(plan, found)
    assert table.header == ["category", "a", "b"] and table.title == "image AUROC"
    assert table.rows == [
        ["bolts", "90.5 ± 0.7 (2)", "80.5 ± 0.7 (2)"],
        ["nuts", "50.5 ± 0.7 (2)", "70.5 ± 0.7 (2)"],
        ["mean of 2", "70.5 ± 0.7 (2)", "75.5 ± 0.7 (2)"],
    ]
    assert table.best == {(0, 1), (1, 2), (2, 2)}
    assert own.cases(plan).rows[1][2] == "train.steps=9"
    assert tables.called(plan, "a") == "a", "both are described alike"
    assert tables.papers_tables(plan, found, Path()) == [], "the paper has no bolts"


def test_published_means_are_of_the_categories_of_the_sweep() -> None:
    plan = made_plan({"a": {}}, ("screw", "tile", "bolts"))
    found = cells_of(plan, lambda *_: 0.9)
    table = tables.papers_tables(plan, found, Path())[0]
    assert [row[0] for row in table.rows] == ["screw", "tile", "mean of 2"]
    assert table.rows[-1][1:3] == ["90.0 ± 0.0 (2)", f"{(91.8 + 99.6) / 2:.1f}"]
    whole = made_plan({"a": {}}, tuple(n for n in published.TABLES[0].rows if n != "average"))
    row = tables.comparison(whole, [], published.TABLES[0]).rows[-1]
    assert row[0] == "mean of 15"
    assert float(row[2]) == published.TABLES[0].rows["average"][-1]


@pytest.mark.parametrize(
    ("latent", "directions", "words"),
    [
        ({"conv4_x": 8}, ("forward",), "PFM, resnet18 and resnet34, conv4_x"),
        ({"conv4_x": 8}, DIRECTIONS, "B-PFM, resnet18 and resnet34, conv4_x"),
        (dict.fromkeys(LEVELS, 8), DIRECTIONS, "MB-PFM, resnet18 and resnet34"),
        ({"conv4_x>conv4_x": 8}, DIRECTIONS, "PFM, resnet18 and resnet34, conv4_x>conv4_x"),
        (
            {"conv2_x": 8, "conv4_x>conv4_x": 8},
            DIRECTIONS,
            "mapping, resnet18 and resnet34, conv2_x, conv4_x>conv4_x",
        ),
    ],
)
def test_a_case_is_called_by_its_directions(
    latent: dict[str, int], directions: tuple[str, ...], words: str
) -> None:
    networks = NetworksConfig("resnet18", "resnet34")
    config = Config(networks=networks, mapping=MappingConfig(latent, directions))
    plan = make_plan(SweepConfig("one", config, {"a": {}}), ("screw",), (0,), ["a"])
    assert tables.describe(plan, "a") == words
