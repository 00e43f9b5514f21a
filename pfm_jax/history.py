"""The learning curve of a run: `metrics.jsonl`, a line for some steps each."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pfm_jax import files, sharding

NAME = "metrics.jsonl"
EVERY = 25


def append(folder: Path, step: int, losses: Mapping[str, np.ndarray]) -> None:
    """Adds the mean losses of each `EVERY` steps of those up to `step`.

    Args:
        folder: of the run.
        step: the last one.
        losses: level -> of each step `[steps]`.
    """
    steps = len(next(iter(losses.values())))
    lines = []
    for start in range(0, steps, EVERY):
        means = {k: float(v[start : start + EVERY].mean()) for k, v in losses.items()}
        last = step - steps + min(start + EVERY, steps)
        lines.append(json.dumps({"step": last, "loss": means}) + "\n")
    if not sharding.is_first():
        return
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / NAME).open("a") as file:
        file.writelines(lines)


def read(folder: Path) -> list[dict[str, Any]]:
    """All lines, of which the last may be half written; `[]` if there are none."""
    path, found = folder / NAME, []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def cut(folder: Path, step: int) -> None:
    """Leaves out what came after `step`: a run that was killed goes on from there."""
    lines = [line for line in read(folder) if line["step"] <= step]
    content = "".join(json.dumps(line) + "\n" for line in lines)
    if lines or (folder / NAME).is_file():
        files.write(folder / NAME, content.encode())
