"""Markdown table of the benchmark, between two markers of a document."""

from __future__ import annotations

from pathlib import Path
from typing import Any

BEGIN, END = "<!-- benchmark -->", "<!-- /benchmark -->"

Row = tuple[str, str, str, str, str]
"""Measurement; ours; eager PyTorch; tuned PyTorch; remark."""


def summary(found: dict[str, Any]) -> dict[str, float]:
    """Headline ratios, by their names in the JSON file."""
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
    """Formats the table, under a line that describes the machine."""
    machine = found["machine"]
    device = "" if machine["device"] == "cpu" else f"{machine['device']}, "
    lines = [
        f"{device}{machine['cores']} cores of {machine['cpu']}, float32 products at "
        f"{found['matmul_gflops']:.0f} GFLOP/s, jax {machine['jax']}, torch {found['torch']}; "
        "medians of interleaved runs.",
        "",
        "| | ours | PyTorch, eager | PyTorch, tuned | |",
        "|---|---|---|---|---|",
        *("| " + " | ".join(row) + " |" for row in rows(found)),
    ]
    return "\n".join(lines)


def write(found: dict[str, Any], document: Path) -> None:
    """Replaces the table between the markers of a document."""
    text = document.read_text()
    before, rest = text.split(BEGIN)
    document.write_text(f"{before}{BEGIN}\n{markdown(found)}\n{END}{rest.split(END)[1]}")


def rows(found: dict[str, Any]) -> list[Row]:
    """All rows of the table."""
    table = [
        _scoring_row(name, batch, found["scoring"][pair][f"b{batch}"])
        for pair, name in (("r34_r50", "R34-R50"), ("r18_r50", "R18-R50"))
        for batch in (8, 1)
    ]
    step = found["training"]
    ours, theirs = (f"{1e3 * step[k]:.0f} ms" for k in ("step_seconds", "reference_step_seconds"))
    remark = f"compiled in {step['compile_seconds']:.0f} s; the reference's is 8 whole images"
    table.append(("a training step, R18-R50", ours, theirs, "", remark))
    if "accelerator" in found:
        table += _accelerator_rows(found["accelerator"])
    if "category" in found:
        table += _category_rows(found["category"])
    seconds, ten = found["metrics_seconds"], found["metrics_10x_ratio"]
    table.append(("metrics of 160 maps", f"{seconds:.1f} s", "", "", f"of 1600: {ten:.1f}x"))
    return [*table, _serving_row(found["serving"])]


def _scoring_row(name: str, batch: int, one: dict[str, Any]) -> Row:
    """Scoring by one pair of networks at one batch size."""
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


def _accelerator_rows(found: dict[str, Any]) -> list[Row]:
    """Scoring at equal precision, and runs that train together."""
    table: list[Row] = []
    for precision, batches in found["scoring"].items():
        for batch, one in batches.items():
            ours, eager, tuned = (
                f"{int(batch) / one['seconds'][k]:.0f} images/s"
                for k in ("ours", "eager", "compiled")
            )
            theirs = (
                f"{eager} ({one['times_eager']:.2f}x)",
                f"{tuned} ({one['times_compiled']:.2f}x)",
            )
            part = f"{100 * one['fraction_of_products']:.0f}% of the rate of products"
            table.append((f"scoring, R18-R50, batch {batch}, {precision}", ours, *theirs, part))
    for runs, one in found["training"].items():
        step = f"{1e3 * one['step_seconds_per_run']:.2f} ms a run"
        times = f"{one['compile_seconds']:.0f} s, from the cache in {one['cached_seconds']:.1f} s"
        table.append((f"a training step, {runs} runs", step, "", "", f"compiled in {times}"))
    return table


def _category_rows(whole: dict[str, Any]) -> list[Row]:
    """One category by itself, and four seeds of it."""
    hours, times = whole["reference_seconds"] / 3600, whole["category_speedup"]
    memory, deviation = whole["peak_gib"], whole["image_auroc_deviation"]
    again = f"{whole['seconds_again']:.0f} s with its programs in the cache"
    remark = f"{again}; 200 epochs from the time of a step; peak memory {memory:.1f} GiB"
    seeds, spread = whole["seeds4_over_seed1"], f"deviation of image AUROC {deviation:.4f}"
    command = "screw, R18-R50, the whole command"
    return [
        (command, f"{whole['seconds']:.0f} s", f"{hours:.1f} h ({times:.0f}x)", "", remark),
        ("the same, four seeds together", f"{seeds:.2f}x one seed", "", "", spread),
    ]


def _serving_row(load: dict[str, Any]) -> Row:
    """The service under load."""
    rate, plain = load["served_per_second"], load["batched_per_second"]
    p95, lost = load["p95_seconds"], load["failures"]
    remark = f"{plain:.1f} without it; 95% within {p95:.1f} s, {lost} of {load['answers']} failed"
    return (f"the service, {load['clients']} clients", f"{rate:.1f} a second", "", "", remark)
