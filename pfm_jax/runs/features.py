"""The features that runs train on together, and each run's extent in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from pfm_jax.backbones.networks import Networks
from pfm_jax.datasets.lazy import chain
from pfm_jax.model import patches
from pfm_jax.model.problem import Extent, make_extent
from pfm_jax.runs import learning
from pfm_jax.runs.partition import Room
from pfm_jax.runs.programs import lowered
from pfm_jax.runs.run import RunFolder
from pfm_jax.system import compilation
from pfm_jax.training import cache
from pfm_jax.training.cache import FeatureCache
from pfm_jax.types import Dataset

CachedFeatures = Callable[[], FeatureCache]
"""Gives the features of the runs' training images, where they are kept for further runs."""


def first_images(runs: Sequence[RunFolder]) -> list[int]:
    """Index of each run's first image in the features of all data sets, one after the other."""
    firsts: dict[Dataset, int] = {}
    end = 0
    for run in runs:
        if run.dataset not in firsts:
            firsts[run.dataset], end = end, end + run.provenance.num_images
    return [firsts[run.dataset] for run in runs]


def extents(runs: Sequence[RunFolder]) -> list[Extent]:
    """Extent of each run in the features of all data sets."""
    return [
        make_extent(run.problem, run.provenance.num_images, first)
        for run, first in zip(runs, first_images(runs), strict=True)
    ]


def own_candidates(runs: Sequence[RunFolder], features: FeatureCache) -> list[np.ndarray | None]:
    """Each run's part of the candidates for a memory, of all data sets."""
    own = features.candidates
    return [
        None if own is None else own[first : first + run.provenance.num_images]
        for run, first in zip(runs, first_images(runs), strict=True)
    ]


def extract_features(
    runs: Sequence[RunFolder], networks: Networks, features: CachedFeatures | None, room: Room
) -> FeatureCache:
    """Extracts the features of the runs' data sets, one after the other, if none are given.

    The cache has room for `room.cached` images or more.
    """
    problem = runs[0].problem
    images = chain([dataset.train for dataset in dict.fromkeys(run.dataset for run in runs)])
    if problem.objective is not None:
        return learning.build_cache(runs[0].config, networks, images, room.cached)
    if features:
        return cache.select(features(), problem.levels, patches.memory_spec(runs[0].config))
    with compilation.ahead(lowered(runs, networks, len(images), room)):
        return learning.build_cache(runs[0].config, networks, images, room.cached)
