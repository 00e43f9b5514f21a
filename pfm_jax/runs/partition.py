"""Runs in parts that train together, as few as fit in memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
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
    """Partitions runs into those that train together: as few parts as fit in memory, of like size.

    A part needs memory for three copies of each state and, if those of every data set fit by
    themselves, for its features; and for as much of both as any other part, whose programs it
    shares. Runs that train together have as many steps. On a CPU only the seeds of one category do:
    arithmetic is the limit there, and more features in memory gain nothing. Baselines run one by
    one.
    """
    config = runs[0].config
    if config.baseline is not None:
        return [[run] for run in runs]
    free = cache.MEMORY_FRACTION * devices.free_on_device()
    on_cpu = jax.default_backend() == "cpu"
    fresh = jax.eval_shape(lambda: learning.fresh_state(config, networks, 1))
    tiles = runs[0].problem.tiles
    image = devices.tree_bytes(cache.cache_shapes(networks, 1, tiles, config.levels))
    if Room.of([[run] for run in runs]).cached * image > free:
        image = 0  # the features lie elsewhere, however runs are parted
    alike: dict[tuple[int, str], list[RunFolder]] = defaultdict(list)
    for run in sorted(runs, key=lambda run: run.provenance.num_images):
        alike[run.total_steps, run.provenance.category if on_cpu else ""].append(run)
    parts: list[list[RunFolder]] = []
    for most in range(max(map(len, alike.values())), 0, -1):
        parts = [part for some in alike.values() for part in _split(some, most)]
        room = Room.of(parts)
        if 3 * room.runs * devices.tree_bytes(fresh) + room.cached * image <= free:
            break
    return parts


def _split(runs: list[RunFolder], most: int) -> list[list[RunFolder]]:
    """Splits runs into as few parts as there can be of at most `most`, of like size."""
    count = -(-len(runs) // most)
    ends = [len(runs) * number // count for number in range(count + 1)]
    return [runs[first:end] for first, end in pairwise(ends)]
