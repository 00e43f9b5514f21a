"""Speed on an accelerator: scoring at equal precision, runs that train together, compiling."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch
from torch import Tensor

from pfm_jax.config import Config
from pfm_jax.inference.detector import Detector, score_batch

from . import untrained
from .reference import torch_pfm
from .reference.bridge import operations, place, reference, wait
from .timing import in_turn, matmul
from .training import our_step

BATCHES, RUNS = (1, 8, 32, 128), (1, 4, 15, 45)
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
"""Ours -> the reference's. Both multiply float32 as TF32 where the device does."""


def scoring(
    config: Config, weights_dir: str, repeats: int, batches: Sequence[int] = BATCHES
) -> dict[str, Any]:
    """Compares ours with the eager and the compiled reference at equal precision.

    Returns precision -> batch size -> median seconds by contender, times of the reference, and
    the fraction of the device's rate of products in that precision.
    """
    networks, state, _ = untrained.start(config, weights_dir)
    eager = place(reference(config, weights_dir, state.heads))
    compiled = torch.compile(copy.deepcopy(eager).tuned(), dynamic=False)
    found: dict[str, Any] = {}
    for precision, dtype in PRECISIONS.items():
        scored = replace(config, scoring=replace(config.scoring, precision=precision))
        detector = untrained.detector(scored, networks, state.heads)
        product, of_product = matmul(8192, precision)
        found[precision] = {}
        for batch in batches:
            images = np.random.default_rng(0).integers(0, 256, (batch, 256, 256, 3), np.uint8)
            same = place(torch.from_numpy(images))
            contenders: dict[str, Callable[[], Any]] = {
                "ours": partial(_ours, detector, jax.device_put(images)),
                "eager": partial(_theirs, eager, same, dtype),
                "compiled": partial(_theirs, compiled, same, dtype),
                "product": product,
            }
            seconds = in_turn(contenders, repeats, warm_up=2)
            rate = operations(eager, same[:1]) * batch / seconds["ours"]
            found[precision][str(batch)] = {
                "seconds": seconds,
                "times_eager": seconds["eager"] / seconds["ours"],
                "times_compiled": seconds["compiled"] / seconds["ours"],
                "fraction_of_products": rate * seconds["product"] / of_product,
            }
    return found


def _ours(detector: Detector, images: Any) -> None:
    score_batch(detector, images).fused.block_until_ready()


def _theirs(model: torch.nn.Module, images: Tensor, dtype: torch.dtype) -> None:
    mixed = dtype != torch.float32
    with torch.autocast(images.device.type, dtype) if mixed else nullcontext():
        torch_pfm.score(model, images)
    wait()


def training(
    config: Config, weights_dir: str, folder: Path, runs: Sequence[int] = RUNS
) -> dict[str, dict[str, float]]:
    """Seconds to compile the training program, and per step of runs that train together.

    `runs`: how many; `folder` is for a compilation cache.
    """
    found = {}
    for number in runs:
        measured = our_step(config, weights_dir, folder / str(number), number)
        found[str(number)] = {
            **measured,
            "step_seconds_per_run": measured["step_seconds"] / number,
        }
    return found
