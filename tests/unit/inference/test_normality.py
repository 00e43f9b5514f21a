"""Normality: the least deviation, and the file that holds it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from pfm_jax.datasets.inputs import examples
from pfm_jax.inference import normality
from pfm_jax.inference.detector import Detector, score_batch
from pfm_jax.model.scoring import scoring_spec
from pfm_jax.runs.run import load_detector
from pfm_jax.system import arrays as array_file
from pfm_jax.types import InputError, Normality, ScoreMaps, Sources
from tests.synthetic import standardized_config as config
from tests.synthetic import texture

SIZE = 64


@pytest.mark.parametrize("spread", [1.0, 0.0])
def test_where_all_images_are_alike_nothing_explodes(
    spread: float, run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tenth of the average deviation is the least, or a thousandth of the average mean."""
    maps = np.full((20, SIZE, SIZE), 2, np.float32)
    maps[:, :16] += spread * np.random.default_rng(0).normal(size=(20, 16, SIZE))
    found = ScoreMaps({}, jnp.asarray(maps), jnp.asarray(maps.max((1, 2))))
    monkeypatch.setattr(Detector, "stream", lambda *_: iter([found]))
    images = examples(np.zeros((20, SIZE, SIZE), np.uint8))
    given = normality.with_normality(load_detector(run, "grid"), images).normality
    assert given is not None
    deviation = ndimage.gaussian_filter(maps.std(0), 2)
    least = 0.1 * deviation.mean() if spread else 1e-3 * maps.mean()
    assert deviation[-1].max() < least
    np.testing.assert_allclose(given.deviation, np.maximum(deviation, least), rtol=1e-4)


def test_off_it_changes_nothing(sources: Sources, run: Path) -> None:
    detector, off = load_detector(run, "grid"), config(standardize=False)
    record = dataclasses.replace(detector.record, config=off)
    plain = dataclasses.replace(detector, normality=None, spec=scoring_spec(off), record=record)
    assert normality.with_normality(plain, []) is plain
    pictures = np.stack([texture(0)])
    nothing = Normality(jnp.zeros((SIZE, SIZE)), jnp.ones((SIZE, SIZE)))
    given = dataclasses.replace(detector, normality=nothing)
    same, before = score_batch(given, pictures), score_batch(plain, pictures)
    np.testing.assert_allclose(np.log(before.fused), same.fused, atol=1e-6)


Arrays = dict[str, np.ndarray]


def without_deviation(arrays: Arrays) -> Arrays:
    return {name: array for name, array in arrays.items() if name != "normality/deviation"}


def smaller(arrays: Arrays) -> Arrays:
    plane = np.zeros((8, 8), np.float32)
    return {**arrays, "normality/mean": plane, "normality/deviation": plane + 1}


def of_doubles(arrays: Arrays) -> Arrays:
    return {**arrays, "normality/mean": arrays["normality/mean"].astype(np.float64)}


@pytest.mark.parametrize("harm", [without_deviation, smaller, of_doubles])
def test_a_detector_without_its_whole_normality_is_refused(
    harm: Callable[[Arrays], Arrays], run: Path, tmp_path: Path
) -> None:
    """It is part of the detector's one file, under its checksum."""
    (tmp_path / "grid").mkdir()
    (tmp_path / "grid" / "run.json").write_bytes((run / "grid" / "run.json").read_bytes())
    arrays, about = array_file.read(run / "grid" / "detector.safetensors")
    path = tmp_path / "grid" / "detector.safetensors"
    array_file.write(path, arrays, about)
    assert load_detector(tmp_path, "grid").fingerprint == load_detector(run, "grid").fingerprint
    array_file.write(path, harm(arrays), about)
    with pytest.raises(
        InputError, match=r"detector\.safetensors: .*; first difference: normality/"
    ):
        load_detector(tmp_path, "grid")


def test_no_other_file_of_the_run_holds_it(run: Path) -> None:
    assert not list(run.rglob("*.npz"))
    holding = [path for path in run.rglob("*") if path.is_file()]
    holding = [path.name for path in holding if b"normality/mean" in path.read_bytes()]
    assert holding == ["detector.safetensors"]


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no archive", None, b"cut", b"bit"])
def test_a_lost_or_damaged_file_is_named(content: bytes | None, run: Path, tmp_path: Path) -> None:
    (tmp_path / "grid").mkdir()
    (tmp_path / "grid" / "run.json").write_bytes((run / "grid" / "run.json").read_bytes())
    whole = bytearray((run / "grid" / "detector.safetensors").read_bytes())
    file = tmp_path / "grid" / "detector.safetensors"
    if content == b"cut":
        file.write_bytes(whole[:1000])
    elif content == b"bit":
        whole[-50] ^= 1
        file.write_bytes(whole)
    elif content is not None:
        file.write_bytes(content)
    message = r"grid: the run is not finished" if content is None else r"detector\.safetensors: "
    with pytest.raises(InputError, match=message):
        load_detector(tmp_path, "grid")
