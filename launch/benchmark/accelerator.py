"""Speed of scoring on an accelerator, at equal precision."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
import torch

from pfm_jax.config import Config

from . import untrained
from .reference.bridge import operations, place, reference
from .scoring import ours_ready, theirs_ready
from .timing import in_turn, matmul

BATCHES = (1, 8, 32, 128)
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
    torch.set_float32_matmul_precision("high")  # TF32; of its convolutions, it is the default
    eager = place(reference(config, weights_dir, state.heads))
    compiled = torch.compile(copy.deepcopy(eager).tuned(), dynamic=False)
    an_image = operations(eager, place(torch.zeros((1, 256, 256, 3), dtype=torch.uint8)))
    found: dict[str, Any] = {}
    for precision, dtype in PRECISIONS.items():
        scored = replace(config, scoring=replace(config.scoring, precision=precision))
        detector = untrained.detector(networks, state, scored)
        product, of_product = matmul(8192, precision)
        found[precision] = {}
        for batch in batches:
            images = np.random.default_rng(0).integers(0, 256, (batch, 256, 256, 3), np.uint8)
            same = place(torch.from_numpy(images))
            contenders: dict[str, Callable[[], Any]] = {
                "ours": partial(ours_ready, detector, jax.device_put(images)),
                "eager": partial(theirs_ready, eager, same, dtype),
                "compiled": partial(theirs_ready, compiled, same, dtype),
                "product": product,
            }
            seconds = in_turn(contenders, repeats, warm_up=2)
            rate = an_image * batch / seconds["ours"]
            found[precision][str(batch)] = {
                "seconds": seconds,
                "times_eager": seconds["eager"] / seconds["ours"],
                "times_compiled": seconds["compiled"] / seconds["ours"],
                "fraction_of_products": rate * seconds["product"] / of_product,
            }
    return found
