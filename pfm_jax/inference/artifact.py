"""An exported detector: a program, its weights and a manifest in one zip file.

Loading needs jax, numpy and Pillow, and no code that trained the detector.

    program.stablehlo   (weights, uint8 RGB images [b, size, size, 3]) -> image_scores [b],
                        anomaly_maps [b, size, size] and the maps of each level; any b
    weights.npz         the arrays, named
    manifest.json       order of the weights, preprocessing, threshold, held-out scores, origin,
                        build (date, jax, and until when which jax reads it), sha256 of the others

The program is readable for as long as `jax.export` promises; a detector's own file, of recipe and
arrays, does not expire.
"""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import logging
import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import export

from pfm_jax.inference.calibration import Threshold
from pfm_jax.inference.scorer import Scorer
from pfm_jax.system import devices
from pfm_jax.types import InputError

FORMAT = "pfm_jax artifact 2"
PROMISED = datetime.timedelta(days=180)
"""What `jax.export` guarantees: programs are read by each jax that is released so long after."""

AGAIN = "export it again: python -m launch.export, from the run or the detector's own file"

PROGRAM, WEIGHTS, MANIFEST = "program.stablehlo", "weights.npz", "manifest.json"


log = logging.getLogger(__name__)


class Artifact(NamedTuple):
    """Content of the file; the program is a serialised `jax.export.Exported`."""

    program: bytes
    weights: dict[str, np.ndarray]
    manifest: dict[str, Any]


def pack(artifact: Artifact) -> bytes:
    """Serialises an artefact."""
    weights = io.BytesIO()
    np.savez(weights, **artifact.weights)  # type: ignore[arg-type]
    held = {PROGRAM: artifact.program, WEIGHTS: weights.getvalue()}
    sha256 = {name: hashlib.sha256(content).hexdigest() for name, content in held.items()}
    manifest = {"format": FORMAT, **artifact.manifest, "sha256": sha256}
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        held[MANIFEST] = json.dumps(manifest, indent=2).encode()
        for name, content in held.items():
            file.writestr(name, content)
    return buffer.getvalue()


def build() -> dict[str, str]:
    """Facts about an export that is made now, for its manifest."""
    today = datetime.datetime.now(datetime.UTC).date()
    until = today + PROMISED
    readers = f"jax {jax.__version__}, and any that is released before {until}"
    return {"date": f"{today}", "jax": jax.__version__, "until": f"{until}", "readers": readers}


def is_artifact(path: Path) -> bool:
    """Whether a file looks like an artefact."""
    return zipfile.is_zipfile(path)


def read(path: Path) -> Artifact:
    """Reads an artefact. Raises InputError: no such file, no artefact, or a damaged one."""
    try:
        with zipfile.ZipFile(path) as file:
            manifest = json.loads(file.read(MANIFEST))
            if manifest["format"] != FORMAT:
                raise InputError(f"{path}: {manifest['format']}, not {FORMAT}; export it again")
            held = {name: file.read(name) for name in (PROGRAM, WEIGHTS)}
        for name, content in held.items():
            if hashlib.sha256(content).hexdigest() != manifest["sha256"][name]:
                raise InputError(f"{path}: damaged, {name} has another checksum; export it again")
        with np.load(io.BytesIO(held[WEIGHTS]), allow_pickle=False) as arrays:
            weights = {name: arrays[name] for name in manifest["weights"]}
    except InputError:
        raise
    except (zipfile.BadZipFile, OSError, KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: not a readable artefact ({error})") from error
    return Artifact(held[PROGRAM], weights, manifest)


def program(artifact: Artifact) -> Any:
    """Loads the program and its weights: uint8 `[b, size, size, 3]` -> its outputs.

    Warns after the time for which it is promised to be readable. Raises InputError: it is not.
    """
    built, today = artifact.manifest["build"], datetime.datetime.now(datetime.UTC).date()
    about = f"the program was made by jax {built['jax']} to be read until {built['until']}"
    if jax.__version__ != built["jax"] and f"{today}" > built["until"]:
        log.warning("%s; this is jax %s: %s", about, jax.__version__, AGAIN)
    try:
        call = jax.jit(export.deserialize(bytearray(artifact.program)).call)
    except Exception as error:  # jax raises anything, even AssertionError
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{about}, and jax {jax.__version__} can't ({reason}); {AGAIN}") from error
    weights = devices.replicate(list(artifact.weights.values()))
    return lambda images: call(weights, images)


def load(path: Path) -> Scorer:
    """Loads an exported detector as a scorer. Raises InputError; see `read`."""
    artifact = read(path)
    manifest = artifact.manifest
    try:
        run = program(artifact)
    except InputError as error:
        raise InputError(f"{path}: {error}") from error

    def score_batch(images: Any) -> tuple[Any, Any]:
        found = run(images)
        return found["image_scores"], found["anomaly_maps"]

    return Scorer(
        score_batch=score_batch,
        size=manifest["preprocessing"]["size"],
        normal_scores=np.array(manifest["normal_scores"], np.float32),
        fingerprint=lambda: "".join(manifest["sha256"].values()),
        threshold=manifest["threshold"] and Threshold(**manifest["threshold"]),
        value_range=manifest["preprocessing"]["value_range"],
    )
