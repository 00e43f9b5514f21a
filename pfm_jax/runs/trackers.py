"""Export of runs to experiment trackers: TensorBoard, Weights & Biases, MLflow.

Each is a `Writer`; what a run is, is written once for all of them. clu's metric writers are the
known alternative: they need TensorFlow and know neither of the other two.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from pfm_jax.metrics import NAMES
from pfm_jax.runs import record
from pfm_jax.types import InputError


class Writer(Protocol):
    """One run in a tracker."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Adds values by name, at a step not below the last one."""

    def image(self, name: str, pixels: np.ndarray, step: int) -> None:
        """Adds a picture, uint8 `[H, W, 3]`."""


Opener = Callable[[Path, str, str], AbstractContextManager[Writer]]
"""Folder of a run, project, name of the run -> a writer, closed at the end of the block."""


def runs(workdir: Path) -> list[Path]:
    """Finds all run folders below a folder. Raises InputError if none exists."""
    files = (record.CURVE, record.METRICS)
    found = sorted({path.parent for name in files for path in workdir.rglob(name)})
    if not found:
        raise InputError(f"workdir={workdir}: no run below it (a folder with {' or '.join(files)})")
    return found


def write(run: Path, writer: Writer) -> None:
    """Writes the losses of a run and, if it is finished, its metrics and pictures."""
    for line in record.read_curve(run):
        losses = {f"loss/{level}": loss for level, loss in line["loss"].items()}
        writer.scalars(losses, line["step"])
    if not (found := record.read_metrics(run)):
        return
    values = {
        f"{metric}/{name}": own[metric]
        for name, own in {"fused": found, **found["levels"]}.items()
        for metric in NAMES
        if own.get(metric) is not None
    }
    writer.scalars(values, found["step"])
    pictures = run / "gallery" / "gallery.json"  # of test images, if there are any
    gallery = json.loads(pictures.read_text()) if pictures.is_file() else []
    for index, picture in enumerate(gallery):
        with Image.open(run / "gallery" / f"{index}.png") as image:
            pixels = np.asarray(image.convert("RGB"))
        title = picture["title"].replace("\n", " ")
        writer.image(f"test/{title}", pixels, found["step"])


@contextmanager
def _tensorboard(run: Path, project: str, name: str) -> Iterator[Writer]:
    """Event files in the run's subfolder `tensorboard`, in place of earlier ones."""
    import tensorboardX

    target = run / "tensorboard"
    shutil.rmtree(target, ignore_errors=True)
    with tensorboardX.SummaryWriter(str(target)) as events:

        class Events:
            def scalars(self, values: Mapping[str, float], step: int) -> None:
                for key, value in values.items():
                    events.add_scalar(key, value, step)

            def image(self, name: str, pixels: np.ndarray, step: int) -> None:
                events.add_image(name, pixels, step, dataformats="HWC")

        yield Events()


@contextmanager
def _wandb(run: Path, project: str, name: str) -> Iterator[Writer]:
    """A new run of Weights & Biases, whose local files are in the run's subfolder `wandb`."""
    import wandb

    try:
        place: dict[str, Any] = {"project": project, "name": name, "dir": str(run)}
        log = wandb.init(**place, config=_recipe(run), reinit="create_new")
    except wandb.Error as error:
        raise InputError(f"wandb: {error}; log in, or set WANDB_MODE=offline") from error
    with log:

        class Log:
            def scalars(self, values: Mapping[str, float], step: int) -> None:
                log.log(dict(values), step=step)

            def image(self, name: str, pixels: np.ndarray, step: int) -> None:
                log.log({name: wandb.Image(pixels)}, step=step)

        yield Log()


@contextmanager
def _mlflow(run: Path, project: str, name: str) -> Iterator[Writer]:
    """A new run of MLflow, in `$MLFLOW_TRACKING_URI` or the current folder's `mlflow.db`."""
    import mlflow

    class Log:
        def scalars(self, values: Mapping[str, float], step: int) -> None:
            mlflow.log_metrics({_plain(key): value for key, value in values.items()}, step)

        def image(self, name: str, pixels: np.ndarray, step: int) -> None:
            mlflow.log_image(pixels, f"{_plain(name)}.png")

    try:
        mlflow.set_experiment(project)
        with mlflow.start_run(run_name=name):
            if recipe := _recipe(run):
                mlflow.log_dict(recipe, "recipe.json")
            yield Log()
    except mlflow.MlflowException as error:
        raise InputError(f"mlflow: {error}; check MLFLOW_TRACKING_URI") from error


def _plain(name: str) -> str:
    """Name of characters that MLflow allows; a level may have `:`, `<` or `>` in it."""
    return re.sub(r"[^\w\-./ ]", "-", name)


def _recipe(run: Path) -> dict[str, Any]:
    return record.about(run).get("provenance", {}).get("config", {})


TRACKERS: dict[str, Opener] = {"tensorboard": _tensorboard, "wandb": _wandb, "mlflow": _mlflow}
"""Trackers by name, which is also that of the extra that each needs."""


def export(run: Path, tracker: str, project: str, name: str) -> None:
    """Exports a run to one of `TRACKERS`. Raises InputError: not installed, or it refuses."""
    try:
        with TRACKERS[tracker](run, project, name) as writer:
            write(run, writer)
    except ImportError as error:
        remedy = f"install the extra, pip install -e '.[{tracker}]'"
        raise InputError(f"{error.name} is not installed: {remedy}") from error
