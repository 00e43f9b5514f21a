"""Unified runs: one set of heads for several categories, each with its own threshold."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

from pfm_jax import datasets
from pfm_jax.runs.run import RunFolder
from pfm_jax.training.checkpoint import Provenance
from pfm_jax.types import Dataset

UNIFIED = "unified"
"""Folder of a unified run, beside those of its categories."""


def unify(groups: Sequence[Sequence[RunFolder]]) -> list[RunFolder]:
    """Makes one run of each group, whose runs differ in their category alone.

    It trains on the images of all, which groups of the same data sets share.
    """
    united = functools.cache(datasets.united)
    return [_unify(runs, united(UNIFIED, tuple(run.dataset for run in runs))) for runs in groups]


def _unify(runs: Sequence[RunFolder], dataset: Dataset) -> RunFolder:
    folder = runs[0].folder.parent / UNIFIED
    trained_on = tuple(run.provenance.category for run in runs)

    def own(category: str, data: str) -> Provenance:
        return dataclasses.replace(
            runs[0].provenance,
            category=category,
            trained_on=trained_on,
            data=data,
            num_images=len(dataset.train),
        )

    parts = tuple(
        RunFolder(folder / name, own(name, run.dataset.fingerprint), run.dataset)
        for name, run in zip(trained_on, runs, strict=True)
    )
    return RunFolder(folder, own(UNIFIED, dataset.fingerprint), dataset, parts=parts)
