"""A detector -> one file that scores images with jax alone, written only if it gives the same."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array, export

from pfm_jax import array_file, artifact, files, images, scoring, tiles
from pfm_jax.artifact import Artifact
from pfm_jax.calibration import Threshold
from pfm_jax.detector import Detector, tree
from pfm_jax.types import Example, InputError, ScoreMaps

PLATFORMS = ("cpu", "cuda", "tpu")
TOLERANCE = 1e-4


def outputs(found: ScoreMaps) -> dict[str, Any]:
    """What the program gives."""
    return {
        "image_scores": found.image_scores,
        "anomaly_maps": found.fused,
        "levels": found.levels,
    }


def make(detector: Detector, threshold: Threshold) -> Artifact:
    """The detector as an artefact, for any batch size on all of `PLATFORMS`.

    Products have the precision that the detector's have on this machine.
    """
    frozen = detector.networks
    held = tree(frozen, detector.heads)
    leaves, structure = jax.tree.flatten(held)
    config, cut = detector.config, tiles.scoring_tiles(detector.config.data)
    (batch,) = export.symbolic_shape("b")
    pictures = jax.ShapeDtypeStruct((batch, cut.image, cut.image, 3), np.uint8)

    def run(weights: list[Array], pictures: Array) -> dict[str, Any]:
        given = jax.tree.unflatten(structure, weights)
        networks = dataclasses.replace(frozen, source=given["source"], target=given["target"])
        return outputs(
            scoring.score_images(
                networks, given["heads"], pictures, config.mapping, config.scoring, cut
            )
        )

    shapes = [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in leaves]
    with _no_paths():
        exported = export.export(jax.jit(run), platforms=PLATFORMS)(shapes, pictures)
    weights = array_file.named(held)
    manifest = {**_manifest(detector, threshold), "weights": list(weights)}
    return Artifact(bytes(exported.serialize()), weights, manifest)


def _manifest(detector: Detector, threshold: Threshold) -> dict[str, Any]:
    sides = {
        "source": detector.networks.source_backbone,
        "target": detector.networks.target_backbone,
    }
    return {
        "preprocessing": {
            "size": detector.config.data.image_size,
            "colours": "RGB, uint8",
            "resample": "lanczos",
            "normalised_by_the_program": {
                side: {"network": backbone.name, "mean": backbone.mean, "std": backbone.std}
                for side, backbone in sides.items()
            },
        },
        "threshold": dataclasses.asdict(threshold),
        "normal_scores": [float(score) for score in detector.normal_scores],
        "origin": {**detector.origin, "config": dataclasses.asdict(detector.config)},
    }


@contextmanager
def _no_paths() -> Iterator[None]:
    """Programs name the files that they come from; here without the folders."""
    option = "jax_hlo_source_file_canonicalization_regex"
    before = getattr(jax.config, option)
    jax.config.update(option, ".*/")
    try:
        yield
    finally:
        jax.config.update(option, before)


def write(
    detector: Detector, threshold: Threshold, examples: Sequence[Example], path: Path
) -> float:
    """Makes the file, reads it back, scores the examples with it and with the detector, and only
    then gives it its name.

    Returns:
        The greatest difference found in any map or score.

    Raises:
        InputError: a difference above `TOLERANCE`; names the stage. Nothing is written then.
    """
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        files.write(part, artifact.pack(make(detector, threshold)))
        worst = check(detector, artifact.read(part), examples)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return worst


def check(detector: Detector, exported: Artifact, examples: Sequence[Example]) -> float:
    """The greatest difference of an artefact to the detector on examples, at any stage.

    Raises:
        InputError: it is above `TOLERANCE`; names the first stage.
    """
    held = array_file.named(tree(detector.networks, detector.heads))
    for name, array in held.items():
        if not np.array_equal(array, exported.weights[name]):
            raise InputError(f"the export differs at weight {name}; it is not written")
    run, config = artifact.program(exported), detector.config
    cut, worst = tiles.scoring_tiles(config.data), 0.0
    for pictures, count in images.batches(examples, config.data.image_size):
        live = scoring.score_images(
            detector.networks,
            detector.heads,
            pictures,
            config.mapping,
            config.scoring,
            cut,
        )
        expected, found = _stages(outputs(live)), _stages(run(pictures))
        for stage, array in expected.items():
            difference = float(np.abs(array - found[stage])[:count].max())
            if not difference <= TOLERANCE:
                raise InputError(
                    f"the export differs by {difference:.2g} at {stage} of {examples[0].path} and "
                    f"others, more than {TOLERANCE:g}; it is not written"
                )
            worst = max(worst, difference)
    return worst


def _stages(found: dict[str, Any]) -> dict[str, np.ndarray]:
    """Name -> array, in the order in which they are computed."""
    levels = {f"the anomaly map at {level}": maps for level, maps in found["levels"].items()}
    fused = {"the fused map": found["anomaly_maps"], "the image score": found["image_scores"]}
    return {stage: np.asarray(array) for stage, array in {**levels, **fused}.items()}
