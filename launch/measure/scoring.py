"""Scoring beside the reference: throughput at batch 8, latency at batch 1."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from launch.measure.ratios import ratios
from pfm_jax import mapping, scoring
from pfm_jax.config import Config, ScoringConfig
from pfm_jax.group import fresh_state
from pfm_jax.run import Sources, load_networks
from pfm_jax.types import ScoreMaps
from tests.reference import torch_pfm
from tests.reference.bridge import reference


def measure(config: Config, weights_dir: str, images: np.ndarray, repeats: int) -> dict[str, Any]:
    """Ours, the eager reference and the tuned one on the same uint8 images, weights and heads.

    Returns:
        Per batch size, seconds a batch of each, ratios, the machine's rate in the same turns and
        the part of it that is reached; and how far the scores are apart.
    """
    networks, _ = load_networks(config, Sources(weights_dir=weights_dir))
    state = fresh_state(config, networks, 1)
    heads = jax.jit(mapping.fold)(state.params, state.batch_stats)
    ours = partial(scoring.score_images, networks, heads, config=config.mapping)
    eager = reference(config, weights_dir, state)
    tuned = copy.deepcopy(eager).tuned()
    compiled, note = torch.compile(tuned), "compiled"
    try:
        torch_pfm.score(compiled, torch.from_numpy(images[:1]))
    except Exception as error:
        compiled, note = tuned, f"not compiled: {type(error).__name__}"
    ways = {"ours": config.scoring, "float32": replace(config.scoring, precision="float32")}
    found: dict[str, Any] = {"tuned": note}
    for batch in (8, 1):
        some, same = images[:batch], torch.from_numpy(images[:batch])
        with FlopCounterMode(display=False) as counter:
            expected = torch_pfm.score(eager, same)[1].numpy()
        for way in ways.values():
            plain = replace(way, smoothing=0.0, relative=False)
            difference = abs(ours(some, scoring=plain).image_scores - expected) / expected
            found[f"score_difference_b{batch}_{way.precision}"] = float(difference.max())
        contenders: dict[str, Callable[[], Any]] = {
            **{k: partial(_wait, ours, some, v) for k, v in ways.items()},
            "eager": partial(torch_pfm.score, eager, same),
            "tuned": partial(torch_pfm.score, compiled, same),
        }
        found[f"b{batch}"] = ratios(contenders, repeats, counter.get_total_flops())
    return found


def _wait(score: Callable[..., ScoreMaps], images: np.ndarray, way: ScoringConfig) -> None:
    score(images, scoring=way).fused.block_until_ready()
