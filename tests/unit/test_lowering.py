"""Every program lowers for GPUs and TPUs, on a machine that has neither."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pfm_jax import backbones
from pfm_jax.backbones import weights
from pfm_jax.backbones.networks import Network, Networks
from pfm_jax.evaluation.evaluate import _judged
from pfm_jax.inference.detector import Record, score_batch, shapes
from pfm_jax.model import patches
from pfm_jax.model.features import feature_channels
from pfm_jax.model.patches import MemorySpec
from pfm_jax.model.problem import make_extent, mapping_problem
from pfm_jax.sweeps.plan import replaced
from pfm_jax.training import cache, expectation, loop, memory, sampling
from pfm_jax.training.step import init_state
from pfm_jax.types import Batch
from tests.synthetic import LEVELS, small_config

PLATFORMS = "cuda", "tpu"
SIZE, BATCH = 64, 8


def networks() -> Networks:
    source, target = (
        Network(weights.shapes(backbone), backbone)
        for backbone in map(backbones.get, ("resnet18", "resnet18_caffe"))
    )
    return Networks(source, target)


def text_of(program: Any, platform: str, *args: Any, **kwargs: Any) -> str:
    lowered = program.trace(*args, **kwargs).lower(lowering_platforms=(platform,))
    return str(lowered.as_text())


IMAGES = jax.ShapeDtypeStruct((BATCH, SIZE, SIZE, 3), np.uint8)
COUNT = jax.ShapeDtypeStruct((), np.int32)


def run(**train: Any) -> tuple[Any, Any, Any]:
    """Problem, state and cached rows of a recipe with bfloat16 products, by shapes."""
    config = small_config(precision="bfloat16", **train)
    problem, channels = mapping_problem(config), feature_channels(networks(), LEVELS)
    extent = make_extent(problem, 5)
    state = jax.eval_shape(lambda: init_state(0, channels, problem, extent))
    return problem, state, cache.cache_shapes(networks(), 8, problem.tiles, LEVELS)


def group_of(tree: Any) -> Any:
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct((2, *x.shape), x.dtype), tree)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("how", ["positions", "images"])
@pytest.mark.parametrize("grouped", [False, True])
def test_training_is_lowered(how: str, grouped: bool, platform: str) -> None:
    problem, state, rows = run(sampling=how, batch_size=2)
    some = group_of(state) if grouped else state
    text = text_of(loop.steps_on_device, platform, some, rows, COUNT, problem)
    assert "bf16" in text
    drawn = {k: sampling.rows_drawn(k, problem) for k in problem.levels}
    features = {
        k: jax.tree.map(lambda s, k=k: jax.ShapeDtypeStruct((3, drawn[k], s.shape[1]), s.dtype), p)
        for k, p in rows.items()
    }
    masks = {k: jax.ShapeDtypeStruct((3, n), jnp.float32) for k, n in drawn.items()}
    batches = Batch(features, masks)
    batches = group_of(batches) if grouped else batches
    assert text_of(loop.steps_on_batches, platform, some, batches, COUNT, problem)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_masked_sums_are_products_on_a_cpu_only(platform: str) -> None:
    """An accelerator would tune a product of each shape; see `layers.masked_sum`."""
    problem, state, rows = run()
    args = state, rows, COUNT, problem

    def products(platform: str) -> int:
        return text_of(loop.steps_on_device, platform, *args).count("dot_general")

    layers, norms, heads_trained = 6, 4, len(LEVELS) * 2
    # One forward and two backward, of which newer releases of jax leave out the gradient of the
    # inputs.
    most = heads_trained * 3 * layers
    assert products(platform) in (most, most - heads_trained)
    # Mean and variance of each norm, and the loss; each with its gradient.
    assert products("cpu") - products(platform) == heads_trained * 2 * (2 * norms + 1)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("tiled", [False, True])
def test_feature_extraction_is_lowered(tiled: bool, platform: str) -> None:
    changes = {"data.tile_size": 32, "data.tile_overlap": 0} if tiled else {}
    cut = mapping_problem(replaced(small_config(), changes)).tiles
    rows = cache.cache_shapes(networks(), 8, cut, LEVELS)
    overlapping = cut._replace(overlap=16) if tiled else cut
    for spec in (None, MemorySpec(LEVELS, cut), MemorySpec(LEVELS, overlapping)):
        rest = networks(), IMAGES, LEVELS, cut, spec
        assert text_of(cache._store_on_device, platform, rows, COUNT, *rest)
    assert text_of(cache._zeros, platform, tuple(rows.items()))


@pytest.mark.parametrize("platform", PLATFORMS)
def test_a_memory_is_lowered(platform: str) -> None:
    features = jax.ShapeDtypeStruct((256, 32, 2 * patches.CHANNELS), np.float32)
    assert text_of(memory._chosen, platform, features, COUNT)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_what_is_expected_is_lowered(platform: str) -> None:
    problem, state, rows = run()
    assert text_of(expectation._fit_on_device, platform, state, rows, problem)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_scoring_is_lowered(platform: str) -> None:
    config = replaced(small_config(), {"scoring.precision": "bfloat16"})
    detector = shapes(networks(), Record(config))
    assert "bf16" in text_of(score_batch, platform, detector, IMAGES)
    maps = jax.eval_shape(score_batch, detector, IMAGES)
    parts = tuple((level,) for level in LEVELS)
    assert text_of(_judged, platform, maps, parts=parts, config=config.scoring)
