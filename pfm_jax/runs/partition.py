"""Runs in parts that train together, as many as fit in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax

from pfm_jax.backbones.networks import Networks
from pfm_jax.runs import learning
from pfm_jax.runs.run import RunFolder
from pfm_jax.system import devices
from pfm_jax.training import cache


class Room(NamedTuple):
    """Capacities common to all parts of a launch, so that they share its programs.

    Attributes:
        cached: images whose features are cached at a time.
        candidates: images of one run, of which a memory is chosen.
        runs: runs that train together.
    """

    cached: int
    candidates: int
    runs: int

    @classmethod
    def of(cls, parts: Sequence[Sequence[RunFolder]]) -> Room:
        """Room for the largest part, and for the largest run."""
        largest = max(run.provenance.num_images for part in parts for run in part)
        return cls(max(map(images_cached, parts)), cache.capacity(largest), max(map(len, parts)))


def images_cached(runs: Sequence[RunFolder]) -> int:
    """Images whose features are cached for runs that train together, each data set's once."""
    sizes = {run.dataset: run.provenance.num_images for run in runs}
    return cache.capacity(sum(sizes.values()))


def partition(runs: Sequence[RunFolder], networks: Networks) -> list[list[RunFolder]]:
    """Partitions runs into those that train together, as many as fit in memory.

    A run needs memory for three copies of its state, a data set for its features. Runs that train
    together have as many steps. On a CPU only the seeds of one category do: arithmetic is the limit
    there, and more features in memory gain nothing. Baselines run one by one.
    """
    config = runs[0].config
    if config.baseline is not None:
        return [[run] for run in runs]
    problem = runs[0].problem
    free = cache.MEMORY_FRACTION * devices.free_on_device()
    on_cpu = jax.default_backend() == "cpu"
    fresh = jax.eval_shape(lambda: learning.fresh_state(config, networks, 1))
    image = devices.tree_bytes(cache.cache_shapes(networks, 1, problem.tiles, config.levels))
    found: list[list[RunFolder]] = []
    for run in sorted(runs, key=lambda run: run.provenance.num_images):
        together = [*found[-1], run] if found else [run]
        categories = {run.provenance.category for run in together}
        need = 3 * len(together) * devices.tree_bytes(fresh) + images_cached(together) * image
        alike = together[0].total_steps == run.total_steps
        if found and alike and (len(categories) == 1 or not on_cpu) and need <= free:
            found[-1] = together
        else:
            found.append([run])
    return found
