"""Parts of a report: spreads, published tables, a folder with a sweep in it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pfm_jax.sweeps import results
from pfm_jax.sweeps.report import page, published, tables
from pfm_jax.sweeps.results import Cell, Spread
from pfm_jax.types import InputError


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
