"""Flags of a detector and its threshold."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from absl import flags

from pfm_jax.inference import artifact, calibration
from pfm_jax.inference.calibration import Threshold
from pfm_jax.inference.detector import Detector
from pfm_jax.inference.scorer import Scorer
from pfm_jax.runs import record
from pfm_jax.runs.run import load_detector
from pfm_jax.serving import batch
from pfm_jax.system import mirror
from pfm_jax.types import InputError

from . import paths

WORKDIR = paths.define("workdir", None, "Folder of the runs; requires --category.")
CATEGORY = flags.DEFINE_string("category", None, "Category of the run.")
WEIGHTS_DIR = paths.define("weights_dir", None, "Folder of the weights, if they have moved.")
ARTIFACT = paths.define("artifact", None, "Exported or saved detector.")
FALSE_POSITIVE_RATE = flags.DEFINE_float(
    "false_positive_rate",
    None,
    "False-positive rate of the threshold; default: the artefact's, else "
    f"{calibration.DEFAULT_RATE}.",
)
NORMAL = paths.define(
    "normal", None, "Normal images that set the threshold instead of the held-out ones."
)
THRESHOLD = flags.DEFINE_float("threshold", None, "Fixed threshold, instead of a rate.")


@contextmanager
def run() -> Iterator[tuple[Path, str] | None]:
    """Workdir and category of the run; None if --artifact is given. Raises InputError."""
    if ARTIFACT.value:
        yield None
        return
    if not (WORKDIR.value and CATEGORY.value):
        raise InputError("no detector given: set --workdir and --category, or --artifact")

    def wanted(name: str) -> bool:
        folder, _, file = name.rpartition("/")
        return folder == str(CATEGORY.value).strip("/") and file in (record.RUN, record.DETECTOR)

    with mirror.local_folder(WORKDIR.value, wanted, read_only=True) as workdir:
        yield workdir, CATEGORY.value


def detector() -> Detector | Path:
    """Detector of a run or of a file, or the path of an exported one. Raises InputError."""
    with run() as place:
        if place:
            return load_detector(*place, WEIGHTS_DIR.value)
    path = Path(str(ARTIFACT.value))
    return path if artifact.is_artifact(path) else Detector.load(path, WEIGHTS_DIR.value)


def scorer() -> Scorer:
    """Scorer of the detector, exported or not. Raises InputError."""
    found = detector()
    return artifact.load(found) if isinstance(found, Path) else found.scorer()


def threshold(scorer: Scorer) -> Threshold | None:
    """Threshold to apply; None, with a warning, if there are too few normal images for the default.

    Raises InputError: too few for the rate that is asked for.
    """
    if THRESHOLD.value is not None:
        return Threshold(THRESHOLD.value)
    if scorer.threshold and FALSE_POSITIVE_RATE.value is None and NORMAL.value is None:
        return scorer.threshold
    scores = batch.normal_scores(scorer, NORMAL.value) if NORMAL.value else scorer.normal_scores
    if FALSE_POSITIVE_RATE.value is None:
        return calibration.default_threshold(scores)
    return calibration.threshold(scores, FALSE_POSITIVE_RATE.value)
