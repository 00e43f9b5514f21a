"""Pre-trained feature mapping: unsupervised anomaly detection and segmentation in JAX.

    images -> frozen backbones -> levels of L2-normalised features (extracted once)
           -> bidirectional mapping heads (the only thing trained) -> anomaly maps -> metrics

    import pfm_jax as pfm

    detector = pfm.fit("good/")                     # folders, globs, arrays, PIL images
    scores, anomaly_maps = detector.score("new/")
    detector.save("screw.pfm")
    detector = pfm.load("screw.pfm")
    result = pfm.evaluate(detector, pfm.datasets.load("mvtec_ad", "D", "screw"))

Rooms, from the ground up; each imports only from those before it: `types`, `methods`, `config`,
`metrics`; `system` (files, devices), `backbones` (frozen networks and their weights), `recipes`,
`datasets` (images in), `model` (the paper's equations), `training`, `baselines` (other methods),
`inference` (the detector), `evaluation`, `runs` (a run's folder), `serving`, `sweeps`.

After Wan, Gao, Li and Wen, "Unsupervised Image Anomaly Detection and Segmentation Based on
Pre-trained Feature Mapping" (2022); equations and tables are cited by their numbers there.
"""

import importlib
from typing import TYPE_CHECKING, Any

from pfm_jax.config import Config
from pfm_jax.types import InputError, Sources

if TYPE_CHECKING:
    from pfm_jax import datasets, metrics
    from pfm_jax.evaluation.evaluate import Evaluation, evaluate
    from pfm_jax.inference.detector import Detector, load, score_batch
    from pfm_jax.inference.prediction import Prediction
    from pfm_jax.recipes import load_recipe
    from pfm_jax.runs.fit import fit

__all__ = [
    "Config",
    "Detector",
    "Evaluation",
    "InputError",
    "Prediction",
    "Sources",
    "datasets",
    "evaluate",
    "fit",
    "load",
    "load_recipe",
    "metrics",
    "score_batch",
]

_HOMES = {
    "Detector": "inference.detector",
    "Prediction": "inference.prediction",
    "load": "inference.detector",
    "score_batch": "inference.detector",
    "Evaluation": "evaluation.evaluate",
    "evaluate": "evaluation.evaluate",
    "fit": "runs.fit",
    "load_recipe": "recipes",
}
"""Public name -> the module it is imported from when it is first used: a command that only loads an
exported detector imports nothing that trains."""


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
