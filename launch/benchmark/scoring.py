"""Scoring speed compared with the reference: throughput at batch 8, latency at batch 1."""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch

from pfm_jax.config import PAPER_SCORING, Config, ScoringConfig
from pfm_jax.inference.detector import Detector, score_batch

from . import untrained
from .reference import torch_pfm
from .reference.bridge import operations, place, reference, wait
from .timing import ratios


def measure(config: Config, weights_dir: str, images: np.ndarray, repeats: int) -> dict[str, Any]:
    """Compares ours with the eager and the tuned reference on the same images, weights and heads.

    Returns:
        For each batch size, `ratios` of the contenders and the largest relative difference of
        scores.
    """
    networks, state, _ = untrained.start(config, weights_dir)
    eager = place(reference(config, weights_dir, state.heads))
    tuned = copy.deepcopy(eager).tuned()
    compiled, note = torch.compile(tuned), "compiled"
    try:
        torch_pfm.score(compiled, place(torch.from_numpy(images[:1])))
    except Exception as error:
        compiled, note = tuned, f"not compiled: {type(error).__name__}"
    ways = {"ours": config.scoring, "float32": replace(config.scoring, precision="float32")}

    def ours(way: ScoringConfig) -> Detector:
        return untrained.detector(networks, state, replace(config, scoring=way))

    found: dict[str, Any] = {"tuned": note}
    for batch in (8, 1):
        some, same = images[:batch], place(torch.from_numpy(images[:batch]))
        expected = torch_pfm.score(eager, same)[1].numpy(force=True)
        for way in ways.values():
            plain = replace(PAPER_SCORING, precision=way.precision)
            scores = np.asarray(score_batch(ours(plain), some).image_scores)
            found[f"score_difference_b{batch}_{way.precision}"] = float(
                (abs(scores - expected) / expected).max()
            )
        contenders: dict[str, Callable[[], Any]] = {
            **{k: partial(ours_ready, ours(way), some) for k, way in ways.items()},
            "eager": partial(theirs_ready, eager, same),
            "tuned": partial(theirs_ready, compiled, same),
        }
        found[f"b{batch}"] = ratios(contenders, repeats, operations(eager, same))
    return found


def ours_ready(detector: Detector, images: Any) -> None:
    """Scores a batch and waits for the maps."""
    score_batch(detector, images).fused.block_until_ready()


def theirs_ready(
    model: torch.nn.Module, images: torch.Tensor, dtype: torch.dtype = torch.float32
) -> None:
    """Scores a batch by the reference, in mixed precision if `dtype` is not float32, and waits."""
    mixed = dtype != torch.float32
    with torch.autocast(images.device.type, dtype) if mixed else nullcontext():
        torch_pfm.score(model, images)
    wait()
