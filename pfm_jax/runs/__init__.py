"""Runs: a recipe and a data set in; a folder with checkpoints, detector, results and log out."""

from pfm_jax.runs.fit import fit
from pfm_jax.runs.run import RunFolder, evaluate_run, load_detector
from pfm_jax.runs.train import train_categories

__all__ = ["RunFolder", "evaluate_run", "fit", "load_detector", "train_categories"]
