"""Export of a detector to one file that needs jax alone, checked before it is written."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array, export

from pfm_jax.config import to_dict
from pfm_jax.datasets.images import batches
from pfm_jax.inference import artifact
from pfm_jax.inference.calibration import Threshold
from pfm_jax.inference.detector import Detector, score_batch
from pfm_jax.system import arrays, devices, files
from pfm_jax.types import Example, InputError, ScoreMaps

PLATFORMS = ("cpu", "cuda", "tpu")
TOLERANCE = 1e-4


def outputs(found: ScoreMaps) -> dict[str, Any]:
    """Outputs of the program, by name."""
    maps = {"anomaly_maps": found.fused, "levels": found.levels}
    return {"image_scores": found.image_scores, **maps}


def make(detector: Detector, threshold: Threshold | None) -> artifact.Artifact:
    """Exports a detector, for any batch size on all of `PLATFORMS`.

    Products have the precision that the detector's have on this machine.
    """
    leaves, structure = jax.tree.flatten(detector)
    (batch,) = export.symbolic_shape("b")
    side = detector.config.data.image_size
    images = jax.ShapeDtypeStruct((batch, side, side, 3), np.uint8)

    def run(weights: list[Array], images: Array) -> dict[str, Any]:
        return outputs(score_batch(jax.tree.unflatten(structure, weights), images))

    shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    with _no_paths():
        exported = export.export(jax.jit(run), platforms=PLATFORMS)(shapes, images)
    weights = arrays.named(detector)
    about = {**manifest(detector, threshold), "weights": list(weights)}
    return artifact.Artifact(bytes(exported.serialize()), weights, about)


def manifest(detector: Detector, threshold: Threshold | None) -> dict[str, Any]:
    """Facts about an exported detector, for those who run it."""
    sides = {side: one.backbone for side, one in detector.networks.pair._asdict().items()}
    return {
        "preprocessing": {
            "size": detector.config.data.image_size,
            "value_range": detector.config.data.value_range,
            "colours": "RGB, uint8",
            "resample": "lanczos",
            "normalised_by_the_program": {
                side: {"network": backbone.name, "mean": backbone.mean, "std": backbone.std}
                for side, backbone in sides.items()
            },
        },
        "build": artifact.build(),
        "threshold": threshold and dataclasses.asdict(threshold),
        "normal_scores": [float(score) for score in detector.normal_scores],
        "origin": {**detector.record.origin, "config": to_dict(detector.config)},
    }


@contextmanager
def _no_paths() -> Iterator[None]:
    """Strips the folders from the file names that programs carry."""
    option = "jax_hlo_source_file_canonicalization_regex"
    before = getattr(jax.config, option)
    jax.config.update(option, ".*/")
    try:
        yield
    finally:
        jax.config.update(option, before)


def write(
    detector: Detector, threshold: Threshold | None, examples: Sequence[Example], path: Path
) -> float:
    """Writes the artefact, once it was read back and passed `check` on the examples.

    Returns the greatest difference. Raises InputError: see `check`; nothing is written then.
    """
    with files.checked(path) as part:
        files.write(part, artifact.pack(make(detector, threshold)))
        return check(detector, artifact.read(part), examples)


def check(detector: Detector, exported: artifact.Artifact, examples: Sequence[Example]) -> float:
    """Compares an artefact with its detector on examples, at every stage.

    Returns the greatest difference in any map or score. Raises InputError: it is above `TOLERANCE`;
    names the first stage.
    """
    for name, array in arrays.named(detector).items():
        if not np.array_equal(array, exported.weights[name]):
            raise InputError(f"the export differs at weight {name}; it is not written")
    run, size, worst = artifact.program(exported), detector.config.data.image_size, 0.0
    for images, count in batches(examples, size, devices.batch_size()):
        placed = devices.shard_batch(images)
        expected, found = (
            _stages(one, count) for one in (outputs(score_batch(detector, placed)), run(placed))
        )
        limits = dict.fromkeys(expected, TOLERANCE)
        where = f"{examples[0].path} and others"
        worst = max(worst, difference(expected, found, limits, "the export", where))
    return worst


def difference(
    expected: Mapping[str, Any],
    found: Mapping[str, Any],
    limits: Mapping[str, float],
    what: str,
    where: str,
) -> float:
    """Greatest difference of arrays by name. Raises InputError: one is above its limit."""
    worst = 0.0
    for name, limit in limits.items():
        own = float(np.abs(np.asarray(expected[name]) - np.asarray(found[name])).max())
        if not own <= limit:
            raise InputError(
                f"{what} differs by {own:.2g} at {name} of {where}, more than {limit:g}; it is not "
                "written"
            )
        worst = max(worst, own)
    return worst


def _stages(found: dict[str, Any], count: int) -> dict[str, np.ndarray]:
    """Stage -> array of the first `count` images, in order of computation."""
    levels = {f"the anomaly map at {level}": maps for level, maps in found["levels"].items()}
    fused = {"the fused map": found["anomaly_maps"], "the image score": found["image_scores"]}
    return {stage: np.asarray(array)[:count] for stage, array in {**levels, **fused}.items()}
