"""ONNX files against the detector, in ONNX Runtime; needs the extra onnx."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

import pfm_jax
from pfm_jax.config import Config
from pfm_jax.datasets.inputs import examples
from pfm_jax.inference import calibration, onnx
from pfm_jax.inference.detector import Detector, score_batch
from pfm_jax.sweeps.plan import replaced
from pfm_jax.types import InputError
from tests.synthetic import make_weights, small_config, texture


def fitted(folder: Path, config: Config) -> Detector:
    make_weights(folder / "weights", "resnet18", "resnet18_caffe")
    images = np.stack([texture(seed) for seed in range(40)])
    return pfm_jax.fit(images, config, str(folder / "weights"))


CHANGES = {
    "bfloat16": {"scoring.precision": "auto"},
    "arithmetic": {"scoring.fusion": "arithmetic", "scoring.memory": False},
}


@pytest.mark.parametrize("name", CHANGES)
def test_onnx_runtime_gives_the_detectors_scores(name: str, tmp_path: Path) -> None:
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is an extra")
    pytest.importorskip("jax2onnx", reason="jax2onnx is an extra")
    config = replaced(
        small_config(steps=20),
        {"data.held_out": 0.5, "scoring.precision": "float32", **CHANGES[name]},
    )
    detector, path = fitted(tmp_path, config), tmp_path / "grid.onnx"
    threshold = calibration.default_threshold(detector.normal_scores)
    limit = 2**-8 if detector.spec.head_precision == "bfloat16" else 1e-4
    pictures = np.stack([texture(seed) for seed in range(50, 54)])
    assert onnx.write(detector, threshold, examples(pictures), path) <= limit
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for picture in pictures[:, None]:
        scores, maps = session.run(["image_scores", "anomaly_maps"], {"images": picture})
        expected = score_batch(detector, picture)
        assert scores.shape == (1,) and maps.shape == (1, 64, 64)
        np.testing.assert_allclose(scores, expected.image_scores, rtol=0, atol=1e-4)
        np.testing.assert_allclose(maps, expected.fused, rtol=0, atol=limit)
    about = json.loads(session.get_modelmeta().custom_metadata_map["pfm_jax"])
    assert about["threshold"]["value"] == threshold.value
    assert about["preprocessing"]["size"] == 64


def test_a_model_that_differs_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxruntime", reason="onnxruntime is an extra")
    pytest.importorskip("jax2onnx", reason="jax2onnx is an extra")
    detector = fitted(tmp_path, small_config(steps=2))
    heads = jax.tree.map(lambda array: array * 1.5, detector.model)
    other = onnx.convert(dataclasses.replace(detector, model=heads), None)
    monkeypatch.setattr(onnx, "convert", lambda *_: other)
    with pytest.raises(InputError, match=r"ONNX Runtime differs by .* of images"):
        onnx.write(detector, None, examples(texture(0)[None]), tmp_path / "grid.onnx")
    assert [one.name for one in tmp_path.iterdir()] == ["weights"]


def test_without_the_extra_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "jax2onnx", None)
    detector = fitted(tmp_path, small_config(steps=2))
    with pytest.raises(InputError, match="jax2onnx is not installed: install the extra"):
        onnx.write(detector, None, examples(texture(0)[None]), tmp_path / "grid.onnx")
