"""Evaluation: a detector and a data set in; metrics, intervals and pictures out, as one value."""

from pfm_jax.evaluation.evaluate import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
