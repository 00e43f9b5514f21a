"""Every program lowers for GPUs and TPUs, on a machine that has neither.

By shapes: nothing is computed. Programs that have variants have a test of their own, all other
jitted functions of a module are a `CALL`.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest

import pfm_jax
from pfm_jax import backbones, baselines, methods
from pfm_jax.backbones import weights
from pfm_jax.backbones.networks import Network, Networks
from pfm_jax.baselines import cnn_dict, padim, patchcore, spade
from pfm_jax.config import TrainConfig
from pfm_jax.evaluation import device_metrics
from pfm_jax.evaluation.evaluate import judge
from pfm_jax.inference.detector import Record, score_batch, shapes
from pfm_jax.methods import (
    AeSsim,
    Baseline,
    CnnDict,
    Padim,
    PatchCore,
    Spade,
    Stfpm,
    Uninformed,
    Vae,
)
from pfm_jax.model import features, nearest, patches, scoring
from pfm_jax.model.features import feature_channels
from pfm_jax.model.folded import fold
from pfm_jax.model.patches import MemorySpec
from pfm_jax.model.problem import Problem, make_extent, mapping_problem
from pfm_jax.sweeps.plan import replaced
from pfm_jax.training import cache, expectation, groups, loop, memory, sampling
from pfm_jax.training.step import _init, init_state
from pfm_jax.types import Batch, Pair
from tests.synthetic import LEVELS, small_config

PLATFORMS = "cuda", "tpu"
SIZE, BATCH = 64, 8
Call = tuple[Any, tuple[Any, ...], dict[str, Any]]
"""A program, its arguments and its keyword arguments."""


def networks() -> Networks:
    source, target = (
        Network(weights.shapes(backbone), backbone)
        for backbone in map(backbones.get, ("resnet18", "resnet18_caffe"))
    )
    return Networks(source, target)


def text_of(program: Any, platform: str, *args: Any, **kwargs: Any) -> str:
    lowered = program.trace(*args, **kwargs).lower(lowering_platforms=(platform,))
    return str(lowered.as_text())


def shaped(*shape: int, dtype: Any = np.float32) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(shape, dtype)


IMAGES, COUNT = shaped(BATCH, SIZE, SIZE, 3, dtype=np.uint8), shaped(dtype=np.int32)
WHOLE = methods.IMAGES


def run(**train: Any) -> tuple[Any, Any, Any]:
    """Problem, state and cached rows of a recipe with bfloat16 products, by shapes."""
    config = small_config(precision="bfloat16", **train)
    problem, channels = mapping_problem(config), feature_channels(networks(), LEVELS)
    extent = make_extent(problem, 5)
    state = jax.eval_shape(lambda: init_state(0, channels, problem, extent))
    return problem, state, cache.cache_shapes(networks(), 8, problem.tiles, LEVELS)


def batch_of(rows: Any, problem: Problem, *steps: int) -> Batch:
    """Batch of a step, or of several, of these cached rows."""
    drawn = {k: sampling.rows_drawn(k, problem) for k in problem.levels}
    features = {
        k: jax.tree.map(lambda s, k=k: shaped(*steps, drawn[k], s.shape[1], dtype=s.dtype), pair)
        for k, pair in rows.items()
    }
    return Batch(features, {k: shaped(*steps, n) for k, n in drawn.items()})


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
    batches = batch_of(rows, problem, 3)
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
        assert text_of(cache._rows_on_host, platform, *rest)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_scoring_is_lowered(platform: str) -> None:
    config = replaced(small_config(), {"scoring.precision": "bfloat16"})
    detector = shapes(networks(), Record(config))
    assert "bf16" in text_of(score_batch, platform, detector, IMAGES)
    maps = jax.eval_shape(score_batch, detector, IMAGES)
    parts = tuple((level,) for level in LEVELS)
    assert text_of(judge, platform, maps, parts=parts, config=config.scoring)


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("method", [Stfpm(), Uninformed(), AeSsim(), Vae()])
def test_the_training_of_a_baseline_is_lowered(method: Baseline, platform: str) -> None:
    functions = baselines.LEARNT[method.method]
    train = TrainConfig(sampling="images", batch_size=2, learning_rate={WHOLE: 1e-3})
    problem = Problem(
        small_config().mapping,
        train,
        mapping_problem(small_config()).tiles,
        ((WHOLE, 1),),
        functions.objective(method, "resnet18", SIZE),
    )
    state = jax.eval_shape(lambda: init_state(0, {}, problem, make_extent(problem, 5)))
    targets = jax.eval_shape(
        functools.partial(functions.targets, method=method), networks().source, IMAGES
    )
    seen = SIZE**2 * 3 if functions.pixels else 0
    rows = {WHOLE: Pair(shaped(8, seen, dtype=np.uint8), targets)}
    assert text_of(loop.steps_on_device, platform, state, rows, COUNT, problem)
    assert text_of(functions.targets, platform, networks().source, IMAGES, method=method)


def maps() -> dict[str, Any]:
    return {level: shaped(BATCH, SIZE, SIZE) for level in LEVELS}


def moments_added() -> Call:
    problem, state, rows = run()
    folded = jax.eval_shape(fold, state.heads)
    batch = batch_of(rows, problem)
    moments = jax.eval_shape(lambda *own: expectation._add(None, *own, problem), folded, batch)
    return expectation._add, (moments, folded, batch, problem), {}


def regression() -> Call:
    _, (moments, *_), _ = moments_added()
    return expectation._fitted, (moments,), {}


def expected_on_device() -> Call:
    problem, state, rows = run()
    return expectation.fit_on_device, (state, rows, problem), {}


def drawn() -> Call:
    problem, state, _ = run()
    extra = {"steps": 3, "problem": problem, "num_tiles": 8}
    return sampling._draw_many, (state.key, COUNT, state.extent), extra


def first_state() -> Call:
    problem, state, _ = run()
    channels = tuple(feature_channels(networks(), LEVELS).items())
    return _init, (shaped(dtype=np.uint32), state.extent, channels, problem), {}


def of_source(program: Any, method: Baseline, *more: Any) -> Call:
    return program, (networks().source, IMAGES, *more), {"method": method}


VECTORS, KEY = shaped(256, 64), jax.eval_shape(lambda: jax.random.key(0))
CALLS: dict[str, Callable[[], Call]] = {
    "baselines.cnn_dict.patches": lambda: of_source(cnn_dict.patches, CnnDict()),
    "baselines.padim._drawn": lambda: of_source(padim._drawn, Padim(), shaped(100, dtype=np.int32)),
    "baselines.patchcore.positions": lambda: of_source(patchcore.positions, PatchCore()),
    "baselines.spade._kept": lambda: of_source(spade._kept, Spade()),
    "evaluation.device_metrics._areas": lambda: (
        device_metrics._areas,
        (*[shaped(1024, dtype=np.int32)] * 2, *[shaped(dtype=np.float64)] * 2),
        {},
    ),
    "model.features.extract": lambda: (features.extract, (networks(), IMAGES, LEVELS), {}),
    "model.nearest.coreset": lambda: (nearest.coreset, (VECTORS, KEY, 8, 16), {}),
    "model.nearest.farthest": lambda: (nearest.farthest, (VECTORS, COUNT, 8), {}),
    "model.scoring.fuse": lambda: (scoring.fuse, (maps(), small_config().scoring), {}),
    "training.cache._zeros": lambda: (cache._zeros, (tuple(run()[2].items()),), {}),
    "training.expectation._add": moments_added,
    "training.expectation._fitted": regression,
    "training.expectation.fit_on_device": expected_on_device,
    "training.groups._unstacked": lambda: (groups._unstacked, (group_of(run()[1]),), {}),
    "training.groups.stack": lambda: (groups.stack, ([run()[1]] * 2,), {}),
    "training.memory.choose": lambda: (
        memory.choose,
        (shaped(256, 32, 2 * patches.CHANNELS), COUNT),
        {},
    ),
    "training.sampling._draw_many": drawn,
    "training.step._init": first_state,
}
OWN_TESTS = {
    "baselines.autoencoder.targets",
    "baselines.stfpm.targets",
    "baselines.uninformed.targets",
    "evaluation.evaluate.judge",
    "inference.detector.score_batch",
    "training.cache._rows_on_host",
    "training.cache._store_on_device",
    "training.loop.steps_on_batches",
    "training.loop.steps_on_device",
}


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("name", CALLS)
def test_a_program_is_lowered(name: str, platform: str) -> None:
    with jax.enable_x64(name == "evaluation.device_metrics._areas"):
        program, args, options = CALLS[name]()
        assert text_of(program, platform, *args, **options)


def test_no_jitted_function_of_a_module_is_left_out() -> None:
    kind, found = type(jax.jit(lambda: 0)), set()
    for one in pkgutil.walk_packages(pfm_jax.__path__, "pfm_jax."):
        module = importlib.import_module(one.name)
        programs = [k for k, v in vars(module).items() if isinstance(v, kind)]
        own = [k for k in programs if vars(module)[k].__module__ == one.name]
        found |= {f"{one.name.removeprefix('pfm_jax.')}.{name}" for name in own}
    assert found == CALLS.keys() | OWN_TESTS
