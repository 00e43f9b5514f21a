"""Partition of runs into those that train together, and what each has of what they share."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import jax
import numpy as np
import pytest

from pfm_jax.backbones.networks import load_networks
from pfm_jax.model.features import feature_channels
from pfm_jax.model.problem import make_extent, mapping_problem
from pfm_jax.model.tiles import Tiles
from pfm_jax.runs import learning
from pfm_jax.runs.features import own_candidates
from pfm_jax.runs.partition import Room, partition
from pfm_jax.runs.run import RunFolder
from pfm_jax.system import devices
from pfm_jax.training import cache
from pfm_jax.training.cache import FeatureCache
from pfm_jax.training.checkpoint import Provenance
from pfm_jax.training.step import init_state
from pfm_jax.types import Dataset, Sources
from tests.synthetic import LEVELS, make_sources, small_config


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """Two categories of the same shapes, and random weights."""
    return make_sources(tmp_path_factory.mktemp("sources"))


@pytest.mark.parametrize(
    ("backend", "runs_in_memory", "expected"),
    [
        ("cpu", 100, [2, 2]),
        ("cpu", 1, [1, 1, 1, 1]),
        ("gpu", 100, [4]),
        ("gpu", 3.5, [2, 2]),
    ],
)
def test_groups_follow_memory(
    backend: str,
    runs_in_memory: float,
    expected: list[int],
    sources: Sources,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Two seeds of two categories of as many images; features count for little here."""
    config = small_config()
    networks, _ = load_networks(config.networks, config.levels, sources.weights_dir)
    provenance = Provenance(config, "", (), "", {}, 6, None, None, {}, "")
    found = {name: Dataset(name, (), (), True, "") for name in ("grid", "tile", "wood")}
    runs = [
        RunFolder(Path(name), dataclasses.replace(provenance, category=name), found[name])
        for name in ("grid", "tile")
        for _ in range(2)
    ]
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    problem, channels = mapping_problem(config), feature_channels(networks, LEVELS)
    extent = make_extent(problem, 6)
    state = devices.tree_bytes(jax.eval_shape(lambda: init_state(0, channels, problem, extent)))
    rows = cache.room_shapes(networks, 12, Tiles(64, 64, 0), LEVELS)  # of both categories
    room = (runs_in_memory * 3 * state + devices.tree_bytes(rows)) / cache.MEMORY_FRACTION
    monkeypatch.setattr(devices, "free_on_device", lambda: room)
    assert [len(some) for some in partition(runs, networks)] == expected
    # Another number of images trains along where there is room, another number of steps does not.
    more = RunFolder(Path("wood"), dataclasses.replace(provenance, num_images=9), found["wood"])
    together = backend == "gpu"
    assert len(partition([*runs, more], networks)) == len(expected) + (not together)
    longer = dataclasses.replace(provenance, config=small_config(steps=31), category="wood")
    other = RunFolder(Path("wood"), longer, found["wood"])
    assert len(partition([*runs, other], networks)) == len(expected) + 1


@pytest.mark.parametrize(
    ("runs_held", "images_held"),
    [(0.5, 64), (1, 64), (2.5, 96), (3, 32), (4, 40), (5, 96), (5, 32)],
)
def test_parts_have_the_memory_of_the_largest(
    runs_held: float, images_held: int, sources: Sources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parts share programs: each is as large as the one of most runs and the one of most images.
    Against every smaller number of parts of like size, none of which fits.
    """
    config = small_config()
    networks, _ = load_networks(config.networks, config.levels, sources.weights_dir)
    one = Provenance(config, "", (), "", {}, 0, None, None, {}, "")
    runs = [
        RunFolder(
            Path(f"{n}"), dataclasses.replace(one, num_images=n), Dataset(f"{n}", (), (), True, "")
        )
        for n in (3, 60, 4, 5, 6)
    ]
    fresh = jax.eval_shape(lambda: learning.fresh_state(config, networks, 1))

    def need(runs: float, images: int, there: bool = True) -> float:
        rows = cache.cache_shapes(networks, images, Tiles(64, 64, 0), LEVELS)
        return 3 * runs * devices.tree_bytes(fresh) + there * devices.tree_bytes(rows)

    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(devices, "devices", lambda: jax.devices()[:1])
    free = need(runs_held, images_held) / cache.MEMORY_FRACTION
    monkeypatch.setattr(devices, "free_on_device", lambda: free)
    found = partition(runs, networks)
    there = need(0, 64) <= free * cache.MEMORY_FRACTION  # else features are on the host anyway

    def fits(parts: list[list[RunFolder]]) -> bool:
        room = Room.of(parts)
        return need(room.runs, room.cached, there) <= free * cache.MEMORY_FRACTION

    ordered = [run for part in found for run in part]
    assert [run.provenance.num_images for run in ordered] == [3, 4, 5, 6, 60]
    assert fits(found) or len(found) == len(runs)
    for count in range(1, len(found)):
        for cuts in itertools.combinations(range(1, len(runs)), count - 1):
            ends = itertools.pairwise((0, *cuts, len(runs)))
            parts = [ordered[first:end] for first, end in ends]
            like = max(map(len, parts)) - min(map(len, parts)) <= 1
            assert not (like and fits(parts))


def test_runs_see_the_patches_of_their_own_images() -> None:
    """Two seeds of four images, between those of two other data sets."""
    one = Provenance(small_config(), "", (), "", {}, 0, None, None, {}, "")
    found = {name: Dataset(name, (), (), True, "") for name in ("grid", "tile", "wood")}
    runs = [
        RunFolder(Path(name), dataclasses.replace(one, num_images=count), found[name])
        for name, count in (("grid", 3), ("tile", 4), ("tile", 4), ("wood", 20))
    ]
    images = np.arange(27.0, dtype=np.float32).reshape(27, 1, 1, 1, 1)
    seen = own_candidates(runs, FeatureCache({}, "device", images))
    ends = [(own.min(), own.max()) for own in seen if own is not None]
    assert ends == [(0, 2), (3, 6), (3, 6), (7, 26)]
    assert own_candidates(runs, FeatureCache({}, "device")) == [None] * 4
    assert Room.of([runs[:3], runs[3:]]) == (cache.capacity(20), cache.capacity(20), 3)
    assert Room.of([runs[:1], runs[:3]]) == (8, 8, 3)
