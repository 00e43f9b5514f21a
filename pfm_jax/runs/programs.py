"""The large programs of a launch, lowered before there is anything to run them on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.stages import Lowered

from pfm_jax.backbones.networks import Networks
from pfm_jax.config import Config
from pfm_jax.evaluation.evaluate import Combinations, apart, judge
from pfm_jax.inference.detector import Record, score_batch, shapes
from pfm_jax.model import patches
from pfm_jax.runs import learning
from pfm_jax.runs.partition import Room
from pfm_jax.runs.run import RunFolder
from pfm_jax.system import devices
from pfm_jax.training import cache, expectation, groups, loop, memory

Lower = Callable[[], Lowered]


def lowered(
    runs: Sequence[RunFolder], networks: Networks, num_images: int, room: Room
) -> Iterator[Lower]:
    """Functions that lower what follows the features of `num_images`: training and what is
    expected, where features stay on the device, the memory, scoring and, on one device, judging.
    """
    config, combinations = runs[0].config, runs[0].combinations
    ignoring = any(one.dataset.ignored is not None for one in runs[0].evaluated)
    yield from _training(config, networks, num_images, len(runs), room)
    yield from _scoring(config, networks, ignoring, combinations)


def lowered_to_fit(
    config: Config, networks: Networks, num_images: int, *, ignoring: bool
) -> Iterator[Lower]:
    """Functions that lower the programs of a run without a folder, which is not judged; none for a
    baseline. See `lowered`.
    """
    if config.baseline is not None:
        return
    room = Room(cached=0, candidates=cache.capacity(num_images), runs=1)
    yield from _training(config, networks, num_images, 1, room)
    yield from _scoring(config, networks, ignoring)


def _training(
    config: Config, networks: Networks, num_images: int, num_runs: int, room: Room
) -> Iterator[Lower]:
    problem, count = learning.make_problem(config), jax.ShapeDtypeStruct((), np.int32)
    state = jax.eval_shape(lambda: learning.fresh_state(config, networks, 1))
    size = groups.group_size(num_runs, room.runs)
    rows: Any = cache.room_shapes(networks, num_images, problem.tiles, config.levels, room.cached)
    if cache.choose_place(devices.tree_bytes(rows)) == "device":
        group = groups.group_shapes(state, size)
        rows, one = groups.shared_shapes((rows, state), size)
        yield lambda: loop.steps_on_device.lower(group, rows, count, problem)
        yield lambda: expectation.fit_on_device.lower(one, rows, problem)
    if spec := patches.memory_spec(config):
        _, _, width, _, channels = patches.memory_shape(networks, spec).shape
        images = max(room.candidates, patches.KEPT)
        row = jax.ShapeDtypeStruct((images, width, channels), np.float32)
        yield lambda: memory.choose.lower(row, count)


def _scoring(
    config: Config, networks: Networks, ignoring: bool, combinations: Combinations | None = None
) -> Iterator[Lower]:
    images = devices.batch_shape(config.data.image_size)
    like = shapes(networks, Record(config), ignoring=ignoring)
    detector = devices.placed_shapes(like)
    yield lambda: score_batch.lower(detector, images)
    # XLA places maps on several devices as it likes.
    if combinations is None or len(devices.devices()) > 1:
        return
    parts = apart(config, combinations)

    def judging() -> Lowered:
        maps = jax.eval_shape(score_batch, detector, images)
        return judge.lower(maps, parts, config.scoring, detector.ignored)

    yield judging
