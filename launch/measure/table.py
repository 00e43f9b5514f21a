"""The README's table of a benchmark, between two marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from launch.measure.rows import rows

BEGIN, END = "<!-- benchmark -->", "<!-- /benchmark -->"


def summary(found: dict[str, Any]) -> dict[str, float]:
    """The ratios that are watched, under short names."""
    b8, b1 = (found["scoring"]["r34_r50"][k] for k in ("b8", "b1"))
    category = found.get("category", {})
    return {
        "score_throughput_ratio_b8": b8["times_eager"],
        "score_latency_ratio_b1": b1["times_eager"],
        "score_throughput_ratio_b8_tuned": b8["times_tuned"],
        "matmul_fraction_b8": b8["matmul_fraction"],
        "float32_throughput_ratio_b8": b8["float32_times_eager"],
        "float32_matmul_fraction_b8": b8["float32_matmul_fraction"],
        "matmul_gflops": b8["matmul_gflops"],
        **{k: category[k] for k in ("category_speedup", "seeds4_over_seed1") if k in category},
    }


def markdown(found: dict[str, Any]) -> str:
    """The table."""
    machine = found["machine"]
    lines = [
        f"{machine['cores']} cores of {machine['cpu']}, float32 products at "
        f"{found['matmul_gflops']:.0f} GFLOP/s, jax {machine['jax']}, torch {found['torch']}; "
        "medians, in turn, in one run.",
        "",
        "| | ours | PyTorch, eager | PyTorch, tuned | |",
        "|---|---|---|---|---|",
        *("| " + " | ".join(row) + " |" for row in rows(found)),
    ]
    return "\n".join(lines)


def write(found: dict[str, Any], readme: Path) -> None:
    """Puts the table between the marks in `readme`."""
    text = readme.read_text()
    before, rest = text.split(BEGIN)
    readme.write_text(f"{before}{BEGIN}\n{markdown(found)}\n{END}{rest.split(END)[1]}")
