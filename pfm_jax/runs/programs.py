"""The large programs of a launch, lowered before there is anything to run them on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.stages import Lowered

from pfm_jax.backbones.networks import Networks
from pfm_jax.evaluation.evaluate import apart, judge
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
    expected, where features stay on the device, the memory, scoring. As they run on one device.
    """
    yield from _training(runs, networks, num_images, room)
    yield from _scoring(runs[0], networks)


def _training(
    runs: Sequence[RunFolder], networks: Networks, num_images: int, room: Room
) -> Iterator[Lower]:
    config, problem = runs[0].config, runs[0].problem
    count = jax.ShapeDtypeStruct((), np.int32)
    state = jax.eval_shape(lambda: learning.fresh_state(config, networks, 1))
    size = groups.group_size(len(runs), room.runs)
    group = jax.eval_shape(groups.stack, [state] * size) if size else state
    rows: Any = cache.room_shapes(networks, num_images, problem.tiles, config.levels, room.cached)
    if cache.choose_place(devices.tree_bytes(rows)) == "device":
        yield lambda: loop.steps_on_device.lower(group, rows, count, problem)
        yield lambda: expectation.fit_on_device.lower(state, rows, problem)
    if spec := patches.memory_spec(config):
        _, _, width, _, channels = patches.memory_shape(networks, spec).shape
        images = max(room.candidates, patches.KEPT)
        row = jax.ShapeDtypeStruct((images, width, channels), np.float32)
        yield lambda: memory.choose.lower(row, count)


def _scoring(run: RunFolder, networks: Networks) -> Iterator[Lower]:
    config, size = run.config, run.config.data.image_size
    images = jax.ShapeDtypeStruct((devices.batch_size(), size, size, 3), np.uint8)
    ignoring = any(one.dataset.ignored is not None for one in run.evaluated)
    detector = shapes(networks, Record(config), ignoring=ignoring)
    parts = apart(config, run.combinations)

    def judging() -> Lowered:
        maps = jax.eval_shape(score_batch, detector, images)
        return judge.lower(maps, parts, config.scoring, detector.ignored)

    yield lambda: score_batch.lower(detector, images)
    yield judging
