"""The large programs of a launch, lowered before there is anything to run them on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.stages import Lowered

from pfm_jax.backbones.networks import Networks
from pfm_jax.inference.detector import Record, score_batch, shapes
from pfm_jax.runs import learning
from pfm_jax.runs.run import RunFolder
from pfm_jax.system import devices
from pfm_jax.training import cache, loop


def lowered(
    runs: Sequence[RunFolder], networks: Networks, num_images: int, room: int
) -> list[Callable[[], Lowered]]:
    """Functions that lower scoring and, if features stay on the device, the training program.

    As they will run on one device, with the features of `num_images` and `room` for more.
    """
    config, problem = runs[0].config, runs[0].problem
    size = config.data.image_size
    state = jax.eval_shape(lambda: learning.fresh_state(config, networks, 1))
    group = state
    if loop.is_group(len(runs)):
        group = jax.eval_shape(loop.stack, [state] * len(runs))
    rows: Any = cache.room_shapes(networks, num_images, problem.tiles, config.levels, room)
    ignoring = any(one.dataset.ignored is not None for one in runs[0].evaluated)
    detector = shapes(networks, Record(config), ignoring=ignoring)
    count, images = (
        jax.ShapeDtypeStruct(*one)
        for one in (((), np.int32), ((devices.batch_size(), size, size, 3), np.uint8))
    )
    programs: list[Callable[[], Lowered]] = [lambda: score_batch.lower(detector, images)]
    if cache.choose_place(devices.tree_bytes(rows)) == "device":
        programs.append(lambda: loop.steps_on_device.lower(group, rows, count, problem))
    return programs
