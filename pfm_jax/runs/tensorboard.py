"""TensorBoard export of a run: losses, metrics and pictures as an event file."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from pfm_jax.metrics import NAMES
from pfm_jax.runs import record
from pfm_jax.types import InputError


def runs(workdir: Path) -> list[Path]:
    """Finds all run folders below a folder. Raises InputError if none exists."""
    files = (record.CURVE, record.METRICS)
    found = sorted({path.parent for name in files for path in workdir.rglob(name)})
    if not found:
        raise InputError(f"workdir={workdir}: no run below it (a folder with {' or '.join(files)})")
    return found


def write(run: Path) -> Path:
    """Exports a run to its `tensorboard` subfolder, replacing an earlier export.

    Raises InputError: tensorboardX is not installed.
    """
    try:
        import tensorboardX
    except ImportError as error:
        remedy = "install the extra, pip install -e '.[tensorboard]'"
        raise InputError(f"tensorboardX is not installed: {remedy}") from error
    target = run / "tensorboard"
    shutil.rmtree(target, ignore_errors=True)
    with tensorboardX.SummaryWriter(str(target)) as writer:
        for line in record.read_curve(run):
            for level, loss in line["loss"].items():
                writer.add_scalar(f"loss/{level}", loss, line["step"])
        if (run / "metrics.json").is_file():
            found = json.loads((run / "metrics.json").read_text())
            for name, values in {"fused": found, **found["levels"]}.items():
                for metric in NAMES:
                    if (value := values.get(metric)) is not None:
                        writer.add_scalar(f"{metric}/{name}", value, found["step"])
            gallery = json.loads((run / "gallery" / "gallery.json").read_text())
            for index, picture in enumerate(gallery):
                with Image.open(run / "gallery" / f"{index}.png") as image:
                    pixels = np.asarray(image)
                title = picture["title"].replace("\n", " ")
                writer.add_image(f"test/{title}", pixels, found["step"], dataformats="HWC")
    return target
