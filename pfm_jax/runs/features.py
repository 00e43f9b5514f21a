"""The features that runs train on together, and each run's extent in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pfm_jax.backbones.networks import Networks
from pfm_jax.datasets.lazy import chain
from pfm_jax.model.problem import Extent, make_extent
from pfm_jax.runs import learning
from pfm_jax.runs.programs import lowered
from pfm_jax.runs.run import RunFolder
from pfm_jax.system import compilation
from pfm_jax.training import cache
from pfm_jax.training.cache import FeatureCache
from pfm_jax.types import Dataset

CachedFeatures = Callable[[], FeatureCache]
"""Gives the features of the runs' training images, where they are kept for further runs."""


def extents(runs: Sequence[RunFolder]) -> list[Extent]:
    """Extent of each run in the features of all data sets, one after the other."""
    firsts: dict[Dataset, int] = {}
    end, found = 0, []
    for run in runs:
        dataset, count = run.dataset, run.provenance.num_images
        if dataset not in firsts:
            firsts[dataset], end = end, end + count
        found.append(make_extent(run.problem, count, firsts[dataset]))
    return found


def extract_features(
    runs: Sequence[RunFolder], networks: Networks, features: CachedFeatures | None, room: int
) -> FeatureCache:
    """Extracts the features of the runs' data sets, one after the other, if none are given.

    The cache has room for `room` images or more.
    """
    problem = runs[0].problem
    images = chain([dataset.train for dataset in dict.fromkeys(run.dataset for run in runs)])
    if problem.objective is not None:
        return learning.build_cache(runs[0].config, networks, images, room)
    if features:
        return cache.at_levels(features(), problem.levels)
    with compilation.ahead(lowered(runs, networks, len(images), room)):
        return learning.build_cache(runs[0].config, networks, images, room)
