"""Recipes: files of `configs/` found and loaded, fields validated."""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
import math
import os
from pathlib import Path

from pfm_jax import backbones
from pfm_jax.config import (
    Config,
    DataConfig,
    MappingConfig,
    ScoringConfig,
    SweepConfig,
    TrainConfig,
)
from pfm_jax.methods import (
    IMAGES,
    AeSsim,
    Baseline,
    CnnDict,
    Spade,
    Stfpm,
    Trained,
    Uninformed,
    Vae,
)
from pfm_jax.types import DIRECTIONS, InputError, Pair, stages

SAMPLINGS = ("positions", "images")
SCHEDULES = ("constant", "cosine", "linear")
FUSIONS = ("geometric", "arithmetic")
PRECISIONS = ("auto", "float32", "bfloat16")


def load_recipe(name: str) -> Config | SweepConfig:
    """Loads a recipe of the package (`"mb_pfm_r18_r50"`), or the `.py` file at a path, by its
    `get_config()`. Raises InputError: no such file, or it gives no recipe.
    """
    found = _recipe_file(name)
    try:
        spec = importlib.util.spec_from_file_location(f"recipe_{found.stem}", found)
        if spec is None or spec.loader is None:
            raise ImportError("not a Python file")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        config = module.get_config()
    except Exception as error:  # a recipe is a program, and may fail in any way
        said = str(error).strip().splitlines()
        raise InputError(f"config={name}: {said[-1] if said else type(error).__name__}") from error
    if not isinstance(config, Config | SweepConfig):
        raise InputError(f"config={name}: its get_config() returns no pfm_jax Config")
    return config


def _recipe_file(name: str) -> Path:
    if (path := Path(os.path.expanduser(name))).is_file():
        return path
    here = Path(__file__).parent
    folder = here / "configs" if (here / "configs").is_dir() else here.parent / "configs"
    known = sorted(file.stem for file in folder.glob("[!_]*.py"))
    if name.removesuffix(".py") in known:
        return folder / f"{path.stem}.py"
    near = difflib.get_close_matches(path.stem, known, 1)
    hint = f"did you mean {near[0]}?" if near else f"recipes are {', '.join(known)}"
    raise InputError(f"config={name}: no such file, and no recipe of that name; {hint}")


def validate(config: Config) -> None:
    """Checks a recipe. Raises InputError for the first bad field, with what it may be, or for a
    network or a stage of one that there is not."""
    for field, seed in (("seed", config.seed), ("networks.seed", config.networks.seed)):
        _check(0 <= seed < 2**32, field, seed, "from 0 to 2**32 - 1")
    side = config.networks.neighbourhood
    _check(side > 0 and side % 2 == 1, "networks.neighbourhood", side, "odd and positive")
    if config.baseline is None:
        _check_mapping(config.mapping)
    else:
        _check_baseline(config, config.baseline)
    stride = _stride(config)
    if isinstance(config.baseline, CnnDict):
        patch = config.baseline.patch
        _check(patch % stride == 0, "baseline.patch", patch, f"a multiple of {stride}")
    _check_data(config.data, stride)
    _check_train(config.train, (IMAGES,) if isinstance(config.baseline, Trained) else config.mapped)
    _check_scoring(config.scoring)
    _check_names(config)


def _check(ok: bool, field: str, value: object, wanted: str) -> None:
    if not ok:
        raise InputError(f"config.{field}={value!r}: must be {wanted}")


def _stride(config: Config) -> int:
    """Common multiple of the strides of all stages in use."""
    names, field = Pair(config.networks.source, config.networks.target), ""
    try:
        for side, name in names._asdict().items():
            field = f"networks.{side}"
            backbones.get(name)
        field = "mapping.latent" if config.baseline is None else "baseline.stages"
        found = [stride for level in config.levels for stride in backbones.strides(names, level)]
        if config.baseline is not None and found != sorted(found):
            raise InputError(f"{config.levels} must be from fine to coarse")
    except InputError as error:
        raise InputError(f"config.{field}: {error}") from error
    return math.lcm(*found)


def _check_baseline(config: Config, method: Baseline) -> None:
    names = config.networks
    for field in dataclasses.fields(method):
        value = getattr(method, field.name)
        if field.type is int:
            _check(value > 0, f"baseline.{field.name}", value, "positive")
        elif field.type is float:
            _check(0 < value <= 1, f"baseline.{field.name}", value, "above 0, up to 1")
    stages, many = method.stages, {AeSsim: 0, Vae: 0, Uninformed: 1, CnnDict: 1}.get(type(method))
    wanted = "at least one stage" if many is None else f"{many} of the network's stages"
    fits = len(stages) > 0 if many is None else len(stages) == many
    _check(fits, "baseline.stages", stages, wanted)
    target = f"{names.source!r}, the one network of a baseline"
    _check(names.target == names.source, "networks.target", names.target, target)
    _check_unused(config)
    if isinstance(method, Spade):
        wanted = f"one of baseline.stages, {stages}"
        _check(method.pooled in stages, "baseline.pooled", method.pooled, wanted)
    if isinstance(method, Trained):
        sampling = config.train.sampling
        _check(sampling == IMAGES, "train.sampling", sampling, f"{IMAGES!r}, of a trained baseline")
    if isinstance(method, Stfpm | Uninformed):
        alike = names.source in ("resnet18", "resnet34")
        _check(alike, "networks.source", names.source, "resnet18 or resnet34, as the student is")
    if isinstance(method, CnnDict):
        fits = config.data.image_size % method.stride == 0 and method.stride <= method.patch
        wanted = f"at most baseline.patch, a divisor of data.image_size={config.data.image_size}"
        _check(fits, "baseline.stride", method.stride, wanted)


def _check_unused(config: Config) -> None:
    """Settings that a baseline would pass over without a word."""
    tile, scoring = config.data.tile_size, config.scoring
    _check(tile == 0, "data.tile_size", tile, "0: a baseline has no tiles")
    side = config.networks.neighbourhood
    _check(side == 1, "networks.neighbourhood", side, "1, of a baseline")
    wanted = "'arithmetic', of a baseline (config.BASELINE_SCORING)"
    _check(scoring.fusion == "arithmetic", "scoring.fusion", scoring.fusion, wanted)
    for field in ("expected", "relative", "memory", "weights"):
        value = getattr(scoring, field)
        _check(not value, f"scoring.{field}", value, "False or empty: a baseline has one map")
    wanted = "'auto' or 'float32': a baseline has no other"
    for field, part in (("scoring", scoring), ("train", config.train)):
        precision = part.precision
        _check(precision != "bfloat16", f"{field}.precision", precision, wanted)


def _check_data(data: DataConfig, stride: int) -> None:
    size, tile, overlap = data.image_size, data.tile_size, data.tile_overlap
    wanted = f"a positive multiple of {stride}"
    _check(size > 0 and size % stride == 0, "data.image_size", size, wanted)
    fits = 0 <= tile <= size and tile % stride == 0
    wanted = f"0, or a multiple of {stride} up to {size}, the image's size"
    _check(fits, "data.tile_size", tile, wanted)
    fits = 0 <= overlap < (tile or overlap + 1)
    _check(fits, "data.tile_overlap", overlap, "zero or more, and less than a tile")
    _check(data.shots >= 0, "data.shots", data.shots, "zero or more")
    _check(0 <= data.held_out < 1, "data.held_out", data.held_out, "from 0 to below 1")
    _check(data.value_range >= 0, "data.value_range", data.value_range, "zero or more")


def _check_mapping(mapping: MappingConfig) -> None:
    latent, directions = mapping.latent, mapping.directions
    _check(len(latent) > 0, "mapping.latent", latent, "at least one level")
    named = all(isinstance(level, str) and all(stages(level)) for level in latent)
    wanted = 'of levels named in quotes, such as "conv4_x" or "4-7:8-11"'
    _check(named, "mapping.latent", latent, wanted)
    known = directions in (DIRECTIONS, DIRECTIONS[:1], DIRECTIONS[1:])
    wanted = f"{DIRECTIONS} or one of them, as a tuple"
    _check(known, "mapping.directions", directions, wanted)
    positive = all(0 < c < math.inf for c in latent.values())
    _check(positive, "mapping.latent", latent, "positive and finite")


def _check_train(train: TrainConfig, levels: tuple[str, ...]) -> None:
    for field, known in (("sampling", SAMPLINGS), ("schedule", SCHEDULES)):
        _check(getattr(train, field) in known, f"train.{field}", getattr(train, field), _one(known))
    _check(train.precision in PRECISIONS, "train.precision", train.precision, _one(PRECISIONS))
    for field in ("batch_size", "steps", "epochs", "checkpoint_every"):
        _check(getattr(train, field) > 0, f"train.{field}", getattr(train, field), "positive")
    for field in ("learning_rate", *("positions",) * (train.sampling == "positions")):
        values = getattr(train, field)
        _check(set(levels) <= set(values), f"train.{field}", values, "given for every level")
        positive = all(0 < v < math.inf for v in values.values())
        _check(positive, f"train.{field}", values, "positive and finite")
    _check(0 <= train.warmup < 1, "train.warmup", train.warmup, "from 0 to below 1")
    _check(0 <= train.beta2 < 1, "train.beta2", train.beta2, "from 0 to below 1")
    for field in ("weight_decay", "checkpoint_seconds"):
        _check(getattr(train, field) >= 0, f"train.{field}", getattr(train, field), "zero or more")


def _check_scoring(scoring: ScoringConfig) -> None:
    precision, smoothing, fusion = scoring.precision, scoring.smoothing, scoring.fusion
    _check(fusion in FUSIONS, "scoring.fusion", fusion, _one(FUSIONS))
    _check(precision in PRECISIONS, "scoring.precision", precision, _one(PRECISIONS))
    for field in ("relative", "weights"):
        values = getattr(scoring, field)
        positive = all(0 < v < math.inf for v in values.values())
        _check(positive, f"scoring.{field}", values, "positive and finite")
    memory = scoring.memory
    alike = fusion == "geometric" or not memory
    _check(alike, "scoring.memory", memory, "False with an arithmetic mean, of maps of one scale")
    _check(0 <= smoothing < 0.5, "scoring.smoothing", smoothing, "from 0 to below 0.5")
    sharp = 0 <= scoring.sharpness < math.inf
    _check(sharp, "scoring.sharpness", scoring.sharpness, "zero or more, and finite")


def _check_names(config: Config) -> None:
    """Levels that values are given for, mapped or not: of a misspelt one none would be used."""
    names, known = Pair(config.networks.source, config.networks.target), {*Config().maps, IMAGES}
    for section, field in (
        *(("train", field) for field in ("learning_rate", "positions")),
        *(("scoring", field) for field in ("relative", "weights")),
    ):
        for level in sorted(getattr(getattr(config, section), field).keys() - known):
            try:
                backbones.strides(names, level)
            except InputError as error:
                raise InputError(f"config.{section}.{field}: {error}") from error


def _one(names: tuple[str, ...]) -> str:
    return f"one of {names}"
