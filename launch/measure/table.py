"""The README's table of a benchmark, between two marks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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


def rows(found: dict[str, Any]) -> list[tuple[str, str, str, str, str]]:
    """What is measured; ours; eager PyTorch; tuned PyTorch; remark."""
    table = []
    for pair, name in (("r34_r50", "R34-R50"), ("r18_r50", "R18-R50")):
        scoring = found["scoring"][pair]
        for batch in (8, 1):
            one = scoring[f"b{batch}"]
            ours, eager, tuned = (one["seconds"][k] / batch for k in ("ours", "eager", "tuned"))
            table.append(
                (
                    f"scoring an image, {name}, batch {batch}",
                    f"{1e3 * ours:.0f} ms",
                    f"{1e3 * eager:.0f} ms ({one['times_eager']:.2f}x)",
                    f"{1e3 * tuned:.0f} ms ({one['times_tuned']:.2f}x)",
                    f"all in float32: {1e3 * one['seconds']['float32'] / batch:.0f} ms, "
                    f"{100 * one['float32_matmul_fraction']:.0f}% of the rate of products",
                )
            )
    step = found["training"]
    table.append(
        (
            "a training step, R18-R50",
            f"{1e3 * step['step_seconds']:.0f} ms",
            f"{1e3 * step['reference_step_seconds']:.0f} ms",
            "",
            f"compiled in {step['compile_seconds']:.0f} s; the reference's is 8 whole images",
        )
    )
    if whole := found.get("category"):
        table += [
            (
                "screw, R18-R50, the whole command",
                f"{whole['seconds']:.0f} s",
                f"{whole['reference_seconds'] / 3600:.1f} h ({whole['category_speedup']:.0f}x)",
                "",
                f"200 epochs from the time of a step; peak memory {whole['peak_gib']:.1f} GiB",
            ),
            (
                "the same, four seeds together",
                f"{whole['seeds4_over_seed1']:.2f}x one seed",
                "",
                "",
                f"deviation of image AUROC {whole['image_auroc_deviation']:.4f}",
            ),
        ]
    seconds, ten = found["metrics_seconds"], found["metrics_10x_ratio"]
    table.append(("metrics of 160 maps", f"{seconds:.1f} s", "", "", f"of 1600: {ten:.1f}x"))
    return table


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
