"""Scoring beside the reference: throughput at batch 8, latency at batch 1."""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from launch.measure.machine import in_turn, matmul
from pfm_jax import features, mapping, pretrained, scoring, train
from pfm_jax.config import Config
from tests.reference import torch_pfm
from tests.reference.bridge import reference


def measure(config: Config, weights_dir: str, images: np.ndarray, repeats: int) -> dict[str, Any]:
    """Ours, the eager reference and the tuned one on the same uint8 images, weights and heads.

    Returns:
        Per batch size, seconds a batch of each, ratios, the machine's rate in the same turns and
        the part of it that is reached; and how far the scores are apart.
    """
    names = config.networks.source, config.networks.target
    networks = features.pair(*(pretrained.load(name, weights_dir) for name in names))
    shapes = features.feature_shapes(networks, images.shape[1], tuple(config.mapping.latent))
    state = train.init_state(config, shapes, 1)
    heads = jax.jit(mapping.fold)(state.params, state.batch_stats)
    eager = reference(config, weights_dir, state)
    tuned = copy.deepcopy(eager).tuned()
    compiled: Any = torch.compile(tuned)
    note = "compiled"
    try:
        torch_pfm.score(compiled, torch.from_numpy(images[:1]))
    except Exception as error:
        compiled, note = tuned, f"not compiled: {type(error).__name__}"
    found: dict[str, Any] = {"tuned": note}
    for batch in (8, 1):
        some = images[:batch]
        expected = torch_pfm.score(eager, torch.from_numpy(some))[1].numpy()
        for precision in ("float32", config.scoring.precision):
            ours = scoring.score_images(networks, heads, some, config.mapping, precision)
            difference = abs(ours.image_scores - expected) / expected
            found[f"score_difference_b{batch}_{precision}"] = float(difference.max())
        product, operations = matmul()
        contenders: dict[str, Callable[[], Any]] = {
            "ours": partial(_score, networks, heads, some, config, config.scoring.precision),
            "float32": partial(_score, networks, heads, some, config, "float32"),
            "eager": partial(torch_pfm.score, eager, torch.from_numpy(some)),
            "tuned": partial(torch_pfm.score, compiled, torch.from_numpy(some)),
            "matmul": product,
        }
        seconds = in_turn(contenders, repeats, warm_up=2)
        with FlopCounterMode(display=False) as counter:
            torch_pfm.score(eager, torch.from_numpy(some))
        rate = operations / seconds["matmul"]
        found[f"b{batch}"] = {
            "seconds": seconds,
            "times_eager": seconds["eager"] / seconds["ours"],
            "times_tuned": seconds["tuned"] / seconds["ours"],
            "gflop": counter.get_total_flops() / 1e9,
            "matmul_gflops": rate / 1e9,
            "matmul_fraction": counter.get_total_flops() / seconds["ours"] / rate,
            "float32_times_eager": seconds["eager"] / seconds["float32"],
            "float32_matmul_fraction": counter.get_total_flops() / seconds["float32"] / rate,
        }
    return found


def _score(
    networks: features.Networks,
    heads: mapping.FoldedHeads,
    images: np.ndarray,
    config: Config,
    precision: str,
) -> None:
    found = scoring.score_images(networks, heads, images, config.mapping, precision)
    found.fused.block_until_ready()
