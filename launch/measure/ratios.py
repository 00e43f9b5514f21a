"""Contenders beside each other and beside the machine's own rate."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from launch.measure.machine import in_turn, matmul


def ratios(
    contenders: dict[str, Callable[[], Any]], repeats: int, operations: int
) -> dict[str, Any]:
    """Of the contenders and a matrix product in turn; each scores a batch in `operations`."""
    product, of_product = matmul()
    seconds = in_turn({**contenders, "matmul": product}, repeats, warm_up=2)
    rate = of_product / seconds["matmul"]
    return {
        "seconds": seconds,
        "times_eager": seconds["eager"] / seconds["ours"],
        "times_tuned": seconds["tuned"] / seconds["ours"],
        "gflop": operations / 1e9,
        "matmul_gflops": rate / 1e9,
        "matmul_fraction": operations / seconds["ours"] / rate,
        "float32_times_eager": seconds["eager"] / seconds["float32"],
        "float32_matmul_fraction": operations / seconds["float32"] / rate,
    }
