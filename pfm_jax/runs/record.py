"""The files of a run's folder: `run.json`, the log, the learning curve, results and pictures."""

from __future__ import annotations

import csv
import datetime
import functools
import io
import json
import logging
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from pfm_jax.evaluation import figures, gallery
from pfm_jax.evaluation.evaluate import Evaluation
from pfm_jax.system import devices, files
from pfm_jax.training.checkpoint import Provenance
from pfm_jax.types import InputError

RUN, LOG, CURVE, METRICS = "run.json", "log.txt", "metrics.jsonl", "metrics.json"
DETECTOR = "detector.safetensors"

CURVE_STEPS = 25
"""Steps that a line of the learning curve averages."""


@contextmanager
def timed(seconds: dict[str, float], phase: str) -> Iterator[None]:
    """Adds the block's duration to `seconds[phase]`."""
    start = time.perf_counter()
    yield
    seconds[phase] = seconds.get(phase, 0.0) + time.perf_counter() - start


def write_run(
    folder: Path, provenance: Provenance, status: str, seconds: Mapping[str, float]
) -> None:
    """Writes `run.json`, with phase -> seconds so far.

    `status` is `"running"` (also of a run that was killed) or `"finished"`.
    """
    about = {
        "status": status,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": dict(seconds),
        "command": sys.argv,
        "git": git_state(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "provenance": provenance.to_json(),
    }
    write_json(folder / RUN, about)


def read_run(folder: Path) -> Provenance:
    """Reads the provenance of a run. Raises InputError: no run there, or of another version."""
    path = folder / RUN
    if not path.is_file():
        raise InputError(f"{folder}: no run in it (a run's folder is --workdir, --category)")
    try:
        return Provenance.from_json(json.loads(path.read_text())["provenance"])
    except (KeyError, TypeError, ValueError) as error:
        wrong = "not readable, or of another version of pfm_jax"
        raise InputError(f"{path}: {wrong}; train again, in another --workdir") from error


def about(folder: Path) -> dict[str, Any]:
    """Content of `run.json`; see `_read_json`."""
    return _read_json(folder / RUN)


def read_metrics(folder: Path) -> dict[str, Any]:
    """Content of `metrics.json`; see `_read_json`."""
    return _read_json(folder / METRICS)


def _read_json(path: Path) -> dict[str, Any]:
    """Content of a file; `{}` if there is none that can be read."""
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def seconds_so_far(folder: Path) -> dict[str, float]:
    """Seconds that features and training of a run have taken in earlier launches."""
    before = about(folder).get("seconds", {})
    return {phase: before.get(phase, 0.0) for phase in ("features", "train")}


def check_trained_on(folder: Path, provenance: Provenance) -> None:
    """Raises InputError: the folder belongs to a run that is trained on other categories."""
    before = about(folder).get("provenance", {}).get("trained_on")
    if before and before != [*provenance.trained_on]:
        raise InputError(
            f"{folder} holds a run trained on {', '.join(before)}; use another --workdir, "
            "or delete that folder"
        )


@functools.cache
def git_state() -> dict[str, str | bool] | None:
    """Commit of this package's checkout and whether files differ from it; None if not in git."""
    git = ("git", "-C", str(Path(__file__).parent))
    try:
        commit, changed = (
            subprocess.run([*git, *command], capture_output=True, text=True, check=True).stdout
            for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "-uno"))
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return {"commit": commit.strip(), "changed": bool(changed.strip())}


@contextmanager
def logged(folder: Path) -> Iterator[None]:
    """Appends this package's log to `log.txt` within the block, errors included.

    Raises InputError: the folder can't be made.
    """
    files.make(folder)
    if not devices.is_primary():
        yield
        return
    handler = logging.FileHandler(folder / LOG, encoding="utf-8", delay=True)
    handler.handleError = lambda record: None  # type: ignore[method-assign]  # on a full disk
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(module)s: %(message)s"))
    package = logging.getLogger("pfm_jax")
    package.addHandler(handler)
    try:
        yield
    except Exception as error:
        text = f"{type(error).__name__}: {error}"  # whoever catches it tells the user
        handler.emit(package.makeRecord("pfm_jax", logging.ERROR, "", 0, text, (), None))
        raise
    finally:
        package.removeHandler(handler)
        handler.close()


def append_curve(folder: Path, step: int, losses: Mapping[str, np.ndarray]) -> None:
    """Appends losses to the learning curve, a line of means for each `CURVE_STEPS` steps.

    `losses`: level -> loss of each step up to the last one, `step`; `[steps]`.
    """
    steps = len(next(iter(losses.values())))
    lines = []
    for start in range(0, steps, CURVE_STEPS):
        means = {k: float(v[start : start + CURVE_STEPS].mean()) for k, v in losses.items()}
        last = step - steps + min(start + CURVE_STEPS, steps)
        lines.append(json.dumps({"step": last, "loss": means}) + "\n")
    if not devices.is_primary():
        return
    files.make(folder)
    files.append(folder / CURVE, "".join(lines).encode())


def read_curve(folder: Path) -> list[dict[str, Any]]:
    """Reads the learning curve up to a half-written line; `[]` if there is none."""
    path, found = folder / CURVE, []
    for line in path.read_text().splitlines() if path.is_file() else ():
        try:
            found.append(json.loads(line))
        except ValueError:
            break
    return found


def truncate_curve(folder: Path, step: int) -> None:
    """Truncates the learning curve to `step`, where a resumed run continues."""
    lines = [line for line in read_curve(folder) if line["step"] <= step]
    content = "".join(json.dumps(line) + "\n" for line in lines)
    if lines or (folder / CURVE).is_file():
        files.write(folder / CURVE, content.encode())


def write_evaluation(folder: Path, found: Evaluation, results: Mapping[str, Any]) -> None:
    """Writes `scores.csv`, the pictures and at last `results` as `metrics.json`."""
    write_scores(folder / "scores.csv", found.paths, found.scores, found.labels)
    if found.panels:
        heatmaps = figures.heatmaps(found.panels, str(results["category"]), gallery.MOST_ANOMALOUS)
        files.write(folder / "heatmaps.png", heatmaps)
    elif devices.is_primary():  # those of test images that are gone
        (folder / "heatmaps.png").unlink(missing_ok=True)
        shutil.rmtree(folder / "gallery", ignore_errors=True)
    for index, panel in enumerate(found.panels):
        strip = figures.strip(panel, found.segmentation_threshold)
        files.write(folder / "gallery" / f"{index}.png", strip)
    shown = [{"title": panel.title, "truth": panel.mask is not None} for panel in found.panels]
    files.write(folder / "gallery" / "gallery.json", json.dumps(shown).encode())
    write_json(folder / METRICS, results)


def write_scores(
    path: Path, paths: Sequence[str], scores: np.ndarray, labels: Sequence[int] | np.ndarray
) -> None:
    """Writes scores as CSV; nine digits restore the float32."""
    table = io.StringIO()
    rows = ((p, f"{s:.9g}", label) for p, s, label in zip(paths, scores, labels, strict=True))
    csv.writer(table, lineterminator="\n").writerows([("path", "score", "label"), *rows])
    files.write(path, table.getvalue().encode())


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Writes JSON, indented."""
    files.write(path, (json.dumps(values, indent=2) + "\n").encode())
