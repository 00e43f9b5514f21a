"""All measurements of the benchmark, in one process, on the same weights and images."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import torch

from pfm_jax.config import Config

from ..common import recipe
from . import accelerator, category, scoring, serving, steps, table, timing
from .reference import step as reference_step
from .reference.bridge import complete_weights

NETWORKS = ("resnet18", "resnet34", "resnet50")


def measure(data_dir: str, weights_dir: str | None, name: str, repeats: int) -> dict[str, Any]:
    """Runs all measurements.

    Args:
        data_dir: folder of the categories.
        weights_dir: folder of weights; missing ones are random.
        name: category to train; empty for none.
        repeats: turns of each contender.

    Returns:
        Content of the JSON file: machine, measurements by subject, headline ratios.
    """
    images = np.random.default_rng(0).integers(0, 256, (8, 256, 256, 3), np.uint8)
    configs = {pair: recipe.load(f"mb_pfm_{pair}", Config) for pair in ("r34_r50", "r18_r50")}
    # The reference maps the paper's levels.
    mapping = configs["r34_r50"].mapping
    configs["r18_r50"] = fast = replace(configs["r18_r50"], mapping=mapping)
    found: dict[str, Any] = {"machine": timing.description(), "torch": torch.__version__}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        weights = str(complete_weights(weights_dir, NETWORKS, place / "weights"))
        found["scoring"] = {
            pair: scoring.measure(config, weights, images, repeats)
            for pair, config in configs.items()
        }
        found["training"] = steps.measure(fast, weights, place / "compiled")
        step = reference_step.measure(fast, weights, images, 3)
        found["training"]["reference_step_seconds"] = step
        found |= category.measure_metrics()
        found["serving"] = serving.measure(fast, weights, place)
        jax.clear_caches()
        if jax.default_backend() != "cpu":
            found["accelerator"] = {
                "scoring": accelerator.scoring(fast, weights, repeats),
                "training": steps.together(fast, weights, place / "programs"),
            }
            jax.clear_caches()
        if name:
            options = [f"--data_dir={data_dir}", f"--category={name}", f"--weights_dir={weights}"]
            options += ["--config=mb_pfm_r18_r50"]
            found["category"] = category.measure(options, place / "runs", step)
    return found | table.summary(found)
