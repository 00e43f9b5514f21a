"""Bad inputs: each case makes one in a folder and uses it.

python -m tests.bad_inputs      what each is told, as the tables of docs/robustness.md
"""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from pfm_jax.backbones import locate, torch_checkpoint
from pfm_jax.backbones import weights as pretrained
from pfm_jax.config import BASELINE_SCORING
from pfm_jax.inference.detector import Detector
from pfm_jax.methods import PatchCore, Stfpm
from pfm_jax.recipes import validate
from pfm_jax.runs.run import evaluate_run
from pfm_jax.runs.train import train_categories
from pfm_jax.serving.batch import predict
from pfm_jax.sweeps.plan import replaced
from pfm_jax.types import LEVELS, InputError, Sources
from tests.bad_files import FILES, TEXT, Case
from tests.synthetic import make_category, make_weights, png, red_scorer, small_config, texture


def trained(changes: dict[str, Any]) -> Case:
    """A recipe that asks for more images than the category has."""

    def case(place: Path) -> object:
        make_category(place / "data" / "grid")
        make_weights(place / "weights", "resnet18", "resnet18_caffe")
        recipe = replaced(small_config(), changes)
        return train_categories(recipe, sources(place), "grid", place / "run")

    return case


def sources(place: Path) -> Sources:
    return Sources(str(place / "data"), str(place / "weights"))


def weights(change: Callable[[dict[str, np.ndarray]], object], name: str = "resnet18") -> Case:
    """A file of weights in which something is changed."""

    def case(place: Path) -> object:
        path = make_weights(place / "weights", "resnet18") / "resnet18.safetensors"
        tensors = safetensors.numpy.load_file(path)
        change(tensors)
        path.unlink()
        safetensors.numpy.save_file(tensors, path.with_name(f"{name}.safetensors"))
        return pretrained.load(name, str(place / "weights"))

    return case


def file_of_weights(content: bytes, suffix: str) -> Case:
    """A file of weights with this content."""

    def case(place: Path) -> object:
        (place / f"resnet18{suffix}").write_bytes(content)
        return locate.read(place / f"resnet18{suffix}")

    return case


class Call:
    """Pickles as a call that leaves a mark."""

    def __init__(self, function: Any, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def zipped(payload: object) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(payload, 2))
    return buffer.getvalue()


def legacy(payload: object) -> bytes:
    header = [torch_checkpoint.LEGACY_MAGIC, 1001, {"little_endian": True}]
    return b"".join(pickle.dumps(part, 2) for part in (*header, payload))


def safetensors_file(header: object, data: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def recipe(**changes: Any) -> Case:
    """A recipe with other values: dots are written as double underscores."""

    def case(_: Path) -> object:
        fields = {name.replace("__", "."): value for name, value in changes.items()}
        return validate(replaced(small_config(), fields))

    return case


def workdir(harm: Callable[[Path], object], **changes: Any) -> Case:
    """A finished run; then something is done, and it is launched again."""

    def case(place: Path) -> object:
        make_category(place / "data" / "grid")
        make_weights(place / "weights", "resnet18", "resnet18_caffe")
        small = small_config(steps=2)
        train_categories(small, sources(place), "grid", place / "run")
        harm(place)
        fields = {name.replace("__", "."): value for name, value in changes.items()}
        changed = replaced(small, fields)
        return train_categories(changed, sources(place), "grid", place / "run")

    return case


def older_format(place: Path) -> None:
    path = place / "run" / "grid" / "checkpoints" / "2" / "provenance" / "metadata"
    about = json.loads(path.read_text())
    del about["sha256"]
    path.write_text(json.dumps(about))


def another_image(place: Path) -> None:
    (place / "data" / "grid" / "train" / "good" / "000.png").write_bytes(png(texture(77)))


def other_weights(place: Path) -> None:
    path = place / "weights" / "resnet18.safetensors"
    tensors = safetensors.numpy.load_file(path)
    tensors["conv1.weight"] = tensors["conv1.weight"] * 1.01
    safetensors.numpy.save_file(tensors, path)


def run_in_a_file(place: Path) -> object:
    make_category(place / "data" / "grid")
    make_weights(place / "weights", "resnet18", "resnet18_caffe")
    (place / "run").write_text("")
    return train_categories(small_config(), sources(place), "grid", place / "run")


def no_run(place: Path) -> object:
    return evaluate_run(place / "run", "grid", sources(place))


def detector_file(content: bytes) -> Case:
    """A file that is to be a detector."""

    def case(place: Path) -> object:
        (place / "grid.detector").write_bytes(content)
        return Detector.load(place / "grid.detector")

    return case


def predicting(pattern: str, threshold: float = 0.5, before: float | None = None) -> Case:
    """New images are scored, perhaps not for the first time."""

    def case(place: Path) -> object:
        make_category(place / "data" / "grid")
        if before is not None:
            predict(red_scorer(), str(place / "data"), place / "out", before)
        return predict(red_scorer(), str(place / pattern), place / "out", threshold)

    return case


CASES: dict[str, Case] = {
    **FILES,
    # Weights.
    "weights: pickle that calls a shell": file_of_weights(
        zipped(Call(os.system, "touch touched")), ".pth"
    ),
    "weights: pickle that evaluates": file_of_weights(
        zipped({"w": Call(eval, "open('touched', 'w')")}), ".pth"
    ),
    "weights: pickle in an old file": file_of_weights(
        legacy(Call(os.system, "touch touched")), ".pth"
    ),
    "weights: pickle within a pickle": file_of_weights(
        zipped([Call(pickle.loads, pickle.dumps(Call(os.mkdir, "touched")))]), ".pth"
    ),
    "weights: torn zip": file_of_weights(zipped({})[:60], ".pth"),
    "weights: no state dict": file_of_weights(zipped([1, 2]), ".pth"),
    "weights: text": file_of_weights(TEXT, ".pth"),
    "weights: empty safetensors": file_of_weights(b"", ".safetensors"),
    "weights: header longer than the file": file_of_weights(
        struct.pack("<Q", 1 << 60) + b"{}", ".safetensors"
    ),
    "weights: header points beyond the file": file_of_weights(
        safetensors_file({"w": {"dtype": "F32", "shape": [9], "data_offsets": [0, 36]}}),
        ".safetensors",
    ),
    "weights: header's shape and bytes differ": file_of_weights(
        safetensors_file(
            {"w": {"dtype": "F32", "shape": [1 << 40], "data_offsets": [0, 4]}}, bytes(4)
        ),
        ".safetensors",
    ),
    "weights: of another network": weights(lambda t: None, "resnet34"),
    "weights: whole numbers": weights(
        lambda t: t.update({"conv1.weight": t["conv1.weight"].astype(np.int32)})
    ),
    "weights: NaN inside": weights(lambda t: t["layer1.0.conv1.weight"].fill(np.nan)),
    "weights: a tensor of another shape": weights(
        lambda t: t.update({"conv1.weight": t["conv1.weight"][:, :1].copy()})
    ),
    "weights: no such network": lambda place: pretrained.load("resnet35", str(place)),
    # Recipes.
    "recipe: unknown field": recipe(train__stepz=3),
    "recipe: negative steps": recipe(train__steps=-3),
    "recipe: size that is no multiple of 16": recipe(data__image_size=100),
    "recipe: tiles larger than images": recipe(data__tile_size=128),
    "recipe: all images held out": recipe(data__held_out=1.0),
    "recipe: more shots than images": trained({"data.shots": 7}),
    "recipe: unknown level": recipe(mapping__latent={"conv9_x": 3}),
    "recipe: unknown direction": recipe(mapping__directions=("up",)),
    "recipe: infinite rate": recipe(train__learning_rate=dict.fromkeys(LEVELS, np.inf)),
    "recipe: two networks of a baseline": recipe(baseline=PatchCore()),
    "recipe: an empty coreset": recipe(
        baseline=PatchCore(coreset=0.0), networks__target="resnet18"
    ),
    "recipe: a baseline trained on positions": recipe(
        baseline=Stfpm(), networks__target="resnet18", scoring=BASELINE_SCORING
    ),
    # Workdirs.
    "workdir: a file": run_in_a_file,
    "workdir: no run": no_run,
    "workdir: a run of another recipe": workdir(lambda place: None, train__beta2=0.5),
    "workdir: other images": workdir(another_image),
    "workdir: other weights": workdir(other_weights),
    "workdir: older format": workdir(older_format),
    # Detectors and predictions.
    "detector: text": detector_file(TEXT),
    "detector: other tensors": detector_file(safetensors.numpy.save({"a": np.zeros(2)})),
    "predict: nothing there": predicting("data/*.jpg"),
    "predict: scores of another threshold": predicting("data", 0.5, 0.4),
}


def told(case: Case) -> str:
    """The error of a case, with its own folder written as `...`. Raises AssertionError if nothing,
    or if something was executed.
    """
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder).resolve()
        os.chdir(place)
        try:
            case(place)
        except InputError as error:
            message = str(error)
        else:
            raise AssertionError("accepted")
        finally:
            os.chdir(before)
        assert not (place / "touched").exists(), "executed"
        return message.replace(str(place), "...")


HEADINGS = {
    "Images and masks": ("image", "mask"),
    "Data sets": ("data",),
    "Weights": ("weights",),
    "Recipes": ("recipe",),
    "Run folders": ("workdir",),
    "Detectors and predictions": ("detector", "predict"),
}
"""Heading on the page -> what the names of its cases begin with."""


def tables() -> str:
    """The table of all cases, as Markdown, under their headings."""
    lines = []
    for heading, kinds in HEADINGS.items():
        lines += [f"### {heading}", "", "| what is wrong | what is said |", "|---|---|"]
        for name, case in CASES.items():
            if name.split(":")[0] in kinds:
                message = told(case).replace("|", "\\|").replace("\n", "<br>")
                lines.append(f"| {name} | {message} |")
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(tables())
