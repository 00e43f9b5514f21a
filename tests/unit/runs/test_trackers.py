"""Runs in trackers, read back from what each of them keeps without a network."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pfm_jax.runs import record, trackers
from pfm_jax.types import InputError
from tests.synthetic import png, texture

PICTURE = "test/hole 0.png: 0.3"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A finished run of one level that is mapped in one direction."""
    folder = tmp_path / "run"
    record.append_curve(folder, 50, {"conv3_x>conv4_x": np.linspace(1, 0, 50)})
    metrics = {"image_auroc": 0.9, "pixel_auroc": 0.8, "pro_auc": None}
    levels = {"conv3_x>conv4_x": metrics}
    found = {**metrics, "levels": levels, "step": 50}
    about = {"provenance": {"config": {"seed": 3, "data": {"shots": 2}}}}
    (folder / "run.json").write_text(json.dumps(about))
    (folder / "metrics.json").write_text(json.dumps(found))
    (folder / "gallery").mkdir()
    (folder / "gallery" / "gallery.json").write_text(json.dumps([{"title": "hole\n0.png: 0.3"}]))
    (folder / "gallery" / "0.png").write_bytes(png(texture(0)))
    return folder


def scalars(level: str) -> dict[tuple[str, int], float]:
    """All scalars of the run, by name and step."""
    return {
        (f"loss/{level}", 25): np.linspace(1, 0, 50)[:25].mean(),
        (f"loss/{level}", 50): np.linspace(1, 0, 50)[25:].mean(),
        **{(f"image_auroc/{name}", 50): 0.9 for name in ("fused", level)},
        **{(f"pixel_auroc/{name}", 50): 0.8 for name in ("fused", level)},
    }


def test_tensorboard(run: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is an extra")
    from tensorboardX.proto.event_pb2 import Event

    for _ in range(2):  # the second takes the place of the first
        trackers.export(run, "tensorboard", "any", "run")
        (file,) = (run / "tensorboard").iterdir()
    content, found, pictures = file.read_bytes(), {}, []
    while content:
        (size,) = struct.unpack("<Q", content[:8])
        event = Event.FromString(content[12 : 12 + size])
        content = content[16 + size :]
        for value in event.summary.value:
            if value.HasField("image"):
                pictures.append(value.tag)
            else:
                found[value.tag, event.step] = value.simple_value
    assert {(name.replace("_conv4", ">conv4"), step): v for (name, step), v in found.items()} == (
        pytest.approx(scalars("conv3_x>conv4_x"))
    )
    assert len(pictures) == 1
    assert trackers.runs(run.parent) == [run]


def wandb_records(content: bytes) -> Iterator[bytes]:
    """Records of a `.wandb` file: LevelDB's log format, in blocks of 32 KiB after 7 bytes."""
    at, block, whole = 7, 2**15, b""
    while at + 7 <= len(content):
        if block - at % block < 7:
            at += block - at % block
            continue
        _, size, kind = struct.unpack("<IHB", content[at : at + 7])
        whole += content[at + 7 : at + 7 + size]
        at += 7 + size
        if kind in (1, 4):  # whole, or the last part
            yield whole
            whole = b""


def test_weights_and_biases_offline(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is an extra")
    from wandb.proto import wandb_internal_pb2

    monkeypatch.chdir(run.parent)  # where its helper writes a log
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    trackers.export(run, "wandb", "screws", "run")
    (file,) = (run / "wandb").glob("offline-run-*/*.wandb")
    found, config, project = {}, {}, ""
    for content in wandb_records(file.read_bytes()):
        entry = wandb_internal_pb2.Record.FromString(content)
        project = entry.run.project or project
        config |= {item.key: json.loads(item.value_json) for item in entry.run.config.update}
        values = {
            item.key or "/".join(item.nested_key): json.loads(item.value_json)
            for item in entry.history.item
        }
        step = values.pop("_step", 0)
        found |= {(name, step): value for name, value in values.items() if name[0] != "_"}
    assert project == "screws" and config["data"] == {"shots": 2} and config["seed"] == 3
    picture = {name: value for (name, _), value in found.items() if PICTURE in name}
    assert picture[f"{PICTURE}/_type"] == "image-file" and picture[f"{PICTURE}/width"] == 64
    found = {key: value for key, value in found.items() if PICTURE not in key[0]}
    assert found == pytest.approx(scalars("conv3_x>conv4_x"))


@pytest.mark.filterwarnings("ignore")  # of SQLAlchemy, about MLflow
def test_mlflow_in_a_local_file(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow", reason="mlflow is an extra")
    monkeypatch.chdir(run.parent)  # for the artefacts
    mlflow.set_tracking_uri(f"sqlite:///{run.parent}/mlflow.db")
    trackers.export(run, "mlflow", "screws", "run")
    client = mlflow.MlflowClient()
    experiment = client.get_experiment_by_name("screws").experiment_id
    (kept,) = client.search_runs([experiment])
    found = {
        (name, one.step): one.value
        for name in kept.data.metrics
        for one in client.get_metric_history(kept.info.run_id, name)
    }
    assert found == pytest.approx(scalars("conv3_x-conv4_x"))
    assert {one.path for one in client.list_artifacts(kept.info.run_id)} == {"recipe.json", "test"}
    assert mlflow.active_run() is None and kept.info.status == "FINISHED"


def test_an_unfinished_run_and_one_without_test_images(run: Path) -> None:
    written: list[str] = []

    class Names:
        def scalars(self, values: dict[str, float], step: int) -> None:
            written.extend(values)

        def image(self, name: str, pixels: np.ndarray, step: int) -> None:
            written.append(name)

    (run / "gallery" / "gallery.json").unlink()
    trackers.write(run, Names())
    assert "image_auroc/fused" in written and not any("test/" in name for name in written)
    written.clear()
    (run / "metrics.json").unlink()
    trackers.write(run, Names())
    assert set(written) == {"loss/conv3_x>conv4_x"}


def test_a_tracker_that_is_not_installed_is_named(
    run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(InputError, match=r"wandb is not installed: install the extra"):
        trackers.export(run, "wandb", "screws", "run")


def test_no_run_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run below it"):
        trackers.runs(tmp_path)
