"""The cost of a sweep's cases, from files written by hand."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pfm_jax.sweeps import results
from pfm_jax.sweeps.plan import Plan, make_plan
from pfm_jax.sweeps.report import cost
from tests.small_sweep import small_sweep


@pytest.fixture
def plan() -> Plan:
    return make_plan(small_sweep(), ("grid", "tile"), (0, 1), ["whole", "random"])


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content))


def test_cost_of_a_case(plan: Plan, tmp_path: Path) -> None:
    """Means over categories and seeds; what was not measured is missing."""
    aurocs = {("grid", 0): 0.8, ("tile", 0): 0.9, ("grid", 1): 1.0, ("tile", 1): 0.9}
    for number, ((category, seed), auroc) in enumerate(aurocs.items()):
        seconds = {"features": 1.0, "train": 10.0 * number, "evaluate": 99.0}
        metrics = {"image_auroc": auroc, "seconds": seconds}
        write(plan.folder(tmp_path, "whole", seed, category) / "metrics.json", metrics)
    write(
        tmp_path / "speed" / "whole.json",
        {"images_per_second": 40.0, "kept": 2**19, "bytes": 3 * 2**20, "by_images": {}},
    )
    found = cost.costs(plan, results.cells(plan, tmp_path), tmp_path)
    whole = found["whole"]
    assert whole.accuracy is not None
    assert whole.accuracy.mean == pytest.approx(0.9)
    assert whole.accuracy.deviation == pytest.approx(0.1 / 2**0.5)
    assert whole.seconds == pytest.approx(15)
    assert found["random"] == (None,) * 5
    rows = {row[0]: row[2:] for row in cost.table(plan, found).rows}
    assert rows == {
        "whole": ["90.0 ± 7.1 (2)", "15", "25.0", "0.5", "3"],
        "random": ["missing"] * 5,
    }
    drawn = cost.plot(plan, found)
    assert drawn is not None
    assert drawn.words.endswith("90.0 at 25.0 ms")
    assert cost.plot(plan, {"random": found["random"]}) is None
