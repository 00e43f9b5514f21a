"""Records that a run writes about itself."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from pfm_jax.runs import record


def test_learning_curve_is_cut_where_a_run_goes_on(tmp_path: Path) -> None:
    losses = {"conv4_x": np.arange(60.0)}
    record.append_curve(tmp_path, 60, losses)
    assert [line["step"] for line in record.read_curve(tmp_path)] == [25, 50, 60]
    assert [line["loss"]["conv4_x"] for line in record.read_curve(tmp_path)] == [12.0, 37.0, 54.5]
    with (tmp_path / record.CURVE).open("a") as file:
        file.write('{"step": 85, "lo')  # killed while it wrote
    record.truncate_curve(tmp_path, 50)
    record.append_curve(tmp_path, 80, {"conv4_x": np.ones(30)})
    assert [line["step"] for line in record.read_curve(tmp_path)] == [25, 50, 75, 80]
    assert record.read_curve(tmp_path / "nowhere") == []
