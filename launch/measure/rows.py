"""The rows of the README's table."""

from __future__ import annotations

from typing import Any

Row = tuple[str, str, str, str, str]
"""What is measured; ours; eager PyTorch; tuned PyTorch; remark."""


def scoring_row(name: str, batch: int, one: dict[str, Any]) -> Row:
    """Of a pair of networks at a batch size."""
    ours, exact, eager, tuned = (
        f"{1e3 * one['seconds'][k] / batch:.0f} ms" for k in ("ours", "float32", "eager", "tuned")
    )
    part = 100 * one["float32_matmul_fraction"]
    return (
        f"scoring an image, {name}, batch {batch}",
        ours,
        f"{eager} ({one['times_eager']:.2f}x)",
        f"{tuned} ({one['times_tuned']:.2f}x)",
        f"all in float32: {exact}, {part:.0f}% of the rate of products",
    )


def category_rows(whole: dict[str, Any]) -> list[Row]:
    """Of a category alone and of four seeds."""
    hours, times = whole["reference_seconds"] / 3600, whole["category_speedup"]
    memory, deviation = whole["peak_gib"], whole["image_auroc_deviation"]
    remark = f"200 epochs from the time of a step; peak memory {memory:.1f} GiB"
    seeds, spread = whole["seeds4_over_seed1"], f"deviation of image AUROC {deviation:.4f}"
    command = "screw, R18-R50, the whole command"
    return [
        (command, f"{whole['seconds']:.0f} s", f"{hours:.1f} h ({times:.0f}x)", "", remark),
        ("the same, four seeds together", f"{seeds:.2f}x one seed", "", "", spread),
    ]


def rows(found: dict[str, Any]) -> list[Row]:
    """All rows."""
    table = [
        scoring_row(name, batch, found["scoring"][pair][f"b{batch}"])
        for pair, name in (("r34_r50", "R34-R50"), ("r18_r50", "R18-R50"))
        for batch in (8, 1)
    ]
    step = found["training"]
    ours, theirs = (f"{1e3 * step[k]:.0f} ms" for k in ("step_seconds", "reference_step_seconds"))
    remark = f"compiled in {step['compile_seconds']:.0f} s; the reference's is 8 whole images"
    table.append(("a training step, R18-R50", ours, theirs, "", remark))
    if "category" in found:
        table += category_rows(found["category"])
    seconds, ten = found["metrics_seconds"], found["metrics_10x_ratio"]
    table.append(("metrics of 160 maps", f"{seconds:.1f} s", "", "", f"of 1600: {ten:.1f}x"))
    return [*table, serving_row(found["serving"])]


def serving_row(load: dict[str, Any]) -> Row:
    """Of the service under load."""
    rate, plain = load["served_per_second"], load["batched_per_second"]
    p95, lost = load["p95_seconds"], load["failures"]
    remark = f"{plain:.1f} by itself; 95% within {p95:.1f} s, {lost} of {load['answers']} failed"
    return (f"the service, {load['clients']} clients", f"{rate:.1f} a second", "", "", remark)
