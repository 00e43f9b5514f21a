"""The event file of a run, read back record by record."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from pfm_jax.runs import record, tensorboard
from pfm_jax.types import InputError
from tests.synthetic import png, texture


def test_events_hold_losses_metrics_and_pictures(tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="tensorboardX is an extra")
    from tensorboardX.proto.event_pb2 import Event

    run = tmp_path / "run"
    record.append_curve(run, 50, {"conv4_x": np.linspace(1, 0, 50)})
    metrics = {"image_auroc": 0.9, "pixel_auroc": 0.8, "pro_auc": None}
    found = {**metrics, "levels": {"conv4_x": metrics}, "step": 50}
    (run / "metrics.json").write_text(json.dumps(found))
    (run / "gallery").mkdir()
    (run / "gallery" / "gallery.json").write_text(json.dumps([{"title": "hole\n0.png: 0.3"}]))
    (run / "gallery" / "0.png").write_bytes(png(texture(0)))
    for _ in range(2):  # the second takes the place of the first
        (file,) = tensorboard.write(run).iterdir()
    content, scalars, pictures = file.read_bytes(), {}, []
    while content:
        (size,) = struct.unpack("<Q", content[:8])
        event = Event.FromString(content[12 : 12 + size])
        content = content[16 + size :]
        for value in event.summary.value:
            if value.HasField("image"):
                pictures.append(value.tag)
            else:
                scalars[value.tag, event.step] = value.simple_value
    assert scalars == pytest.approx(
        {
            ("loss/conv4_x", 25): np.linspace(1, 0, 50)[:25].mean(),
            ("loss/conv4_x", 50): np.linspace(1, 0, 50)[25:].mean(),
            **{(f"image_auroc/{name}", 50): 0.9 for name in ("fused", "conv4_x")},
            **{(f"pixel_auroc/{name}", 50): 0.8 for name in ("fused", "conv4_x")},
        }
    )
    assert len(pictures) == 1
    assert tensorboard.runs(tmp_path) == [run]


def test_no_run_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run below it"):
        tensorboard.runs(tmp_path)
