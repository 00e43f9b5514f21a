"""The benchmark's parts that need no PyTorch."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from launch.benchmark import steps
from tests.synthetic import make_weights, small_config


def test_a_step_of_one_run_and_of_several_is_measured(tmp_path: Path) -> None:
    weights = make_weights(tmp_path / "weights", "resnet18", "resnet18_caffe")
    found = steps.together(small_config(), str(weights), tmp_path / "programs", (1, 2))
    assert list(found) == ["1", "2"]
    for number, one in found.items():
        assert all(np.isfinite(value) and value > 0 for value in one.values())
        assert one["step_seconds_per_run"] * int(number) == one["step_seconds"]
