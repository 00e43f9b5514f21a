"""One typed config tree. Every default is written here, once; a recipe states what differs.

The classes have slots, so a misspelt field is an error, and are mutable, so that flags can
override any field (`--config.train.steps=500`). They hash by value: a recipe is a static
argument of `jit`. (Annotations are not deferred here: flags read the types.)
"""

import copy
import dataclasses
import functools
import math
from typing import Any

from pfm_jax.types import LEVELS, InputError

DIRECTIONS = ("forward", "backward")
SAMPLINGS = ("positions", "images")
SCHEDULES = ("constant", "cosine", "linear")
PRECISIONS = ("auto", "float32", "bfloat16")


def _by_value(config: object) -> int:
    return hash(repr(config))


@dataclasses.dataclass(slots=True)
class DataConfig:
    """What is looked at.

    Attributes:
        dataset: `"mvtec_ad"` (also any category in its layout), `"folder"` or `"elpv"`.
        image_size: images are resized to this square, in pixels; a multiple of 16.
        tile_size: the networks see tiles of this square, a multiple of 16; 0: the whole image.
        tile_overlap: of neighbouring tiles when scoring, in pixels.
        held_out: the part of the normal training images that is not learned from: their scores set
            the threshold. They are the same images for every seed.
    """

    dataset: str = "mvtec_ad"
    image_size: int = 256
    tile_size: int = 0
    tile_overlap: int = 64
    held_out: float = 0.1

    __hash__ = _by_value


@dataclasses.dataclass(slots=True)
class NetworksConfig:
    """The two frozen networks.

    Attributes:
        source, target: names in `backbones.NAMES`.
        pretrained: on ImageNet; else their weights are random (the control of Table VII, case 9).
        seed: of random weights.
        neighbourhood: features are averaged over so many positions a side, an odd number; 1: not.
            It suits surfaces, and costs parts whose defects are as small as a position.
    """

    source: str = "resnet34"
    target: str = "resnet50"
    pretrained: bool = True
    seed: int = 0
    neighbourhood: int = 1

    __hash__ = _by_value


@dataclasses.dataclass(slots=True)
class MappingConfig:
    """The heads.

    Attributes:
        latent: level -> c of Table II; its keys are the levels that are mapped.
        directions: `("forward",)` is PFM, both are B-PFM (one level) and MB-PFM (three).
        normalize_prediction: L2-normalise the heads' outputs (eq. 7, 11).
    """

    latent: dict[str, int] = dataclasses.field(
        default_factory=lambda: {"conv2_x": 200, "conv3_x": 400, "conv4_x": 900}
    )
    directions: tuple[str, ...] = DIRECTIONS
    normalize_prediction: bool = True

    __hash__ = _by_value


@dataclasses.dataclass(slots=True)
class TrainConfig:
    """How the heads learn.

    Attributes:
        sampling: `"positions"` draws random positions of all images, `"images"` whole images,
            every image once an epoch.
        positions: level -> positions a step, for `"positions"`.
        candidates: so many more are drawn for each of them, and the worst mapped of those are half
            of the step's positions; 0: all are drawn uniformly.
        batch_size: images a step, for `"images"`.
        steps: steps in all, for `"positions"`.
        epochs: passes over the images, for `"images"`.
        learning_rate: level -> peak rate of Adam.
        warmup: the part of all steps in which the rate rises from zero to its peak.
        schedule: after that: `"constant"`, or down to zero at the last step, `"cosine"` or
            `"linear"`.
        beta2: Adam's memory of squared gradients.
        weight_decay: L2 added to the gradient, as torch's Adam does it.
        precision: of the operands of the heads' products, `"float32"`, `"bfloat16"`, or `"auto"`:
            bfloat16 where the device has units for it. All else is float32.
    """

    sampling: str = "positions"
    positions: dict[str, int] = dataclasses.field(
        default_factory=lambda: {"conv2_x": 1024, "conv3_x": 512, "conv4_x": 256}
    )
    candidates: int = 2
    batch_size: int = 8
    steps: int = 1000
    epochs: int = 200
    learning_rate: dict[str, float] = dataclasses.field(
        default_factory=lambda: {"conv2_x": 1e-2, "conv3_x": 5e-3, "conv4_x": 4e-3}
    )
    warmup: float = 0.2
    schedule: str = "linear"
    beta2: float = 0.99
    weight_decay: float = 0.0
    precision: str = "auto"
    checkpoint_every: int = 250

    __hash__ = _by_value


@dataclasses.dataclass(slots=True)
class ScoringConfig:
    """How images are scored.

    Attributes:
        precision: `"float32"`; `"bfloat16"` for the weights and activations of networks and heads;
            or `"auto"`: networks in float32, products of the heads in bfloat16 where the device
            has units for it. That moved no score of MVTec AD's screw by more than 0.15%.
        smoothing: standard deviation of the Gaussian that the fused map is smoothed with, as a part
            of the image's side; 0: none.
        relative: divide each map by the root of its own mean.
        standardize: after that, take off each position's mean over normal training images, and
            divide by its deviation. It suits parts that always lie alike.
    """

    precision: str = "auto"
    smoothing: float = 1 / 64
    relative: bool = True
    standardize: bool = False

    __hash__ = _by_value


@dataclasses.dataclass(slots=True)
class Config:
    """A recipe: all that decides the numbers of a run, except data and weights themselves."""

    name: str = "mb_pfm"
    seed: int = 0
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    networks: NetworksConfig = dataclasses.field(default_factory=NetworksConfig)
    mapping: MappingConfig = dataclasses.field(default_factory=MappingConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    scoring: ScoringConfig = dataclasses.field(default_factory=ScoringConfig)

    __hash__ = _by_value


@dataclasses.dataclass(slots=True)
class SweepConfig:
    """Many recipes that differ in little.

    Attributes:
        name: of the sweep.
        base: the recipe that all cases start from.
        cases: name -> field of the base, dotted (`"networks.source"`) -> its value in the case.
    """

    name: str = "sweep"
    base: Config = dataclasses.field(default_factory=Config)
    cases: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)


def replaced(config: Config, changes: dict[str, Any]) -> Config:
    """A copy with other values in some fields, named as in `SweepConfig.cases`.

    Raises:
        InputError: there is no such field.
    """
    config = copy.deepcopy(config)
    for field, value in changes.items():
        *place, name = field.split(".")
        try:
            part = functools.reduce(getattr, place, config)
            getattr(part, name)
            setattr(part, name, copy.deepcopy(value))
        except AttributeError as error:
            raise InputError(f"config.{field}: there is no such field") from error
    return config


def validate(config: Config) -> None:
    """Raises InputError for the first field that can't be; says which, and what it may be."""
    mapping, train, check = config.mapping, config.train, _check
    for field, seed in (("seed", config.seed), ("networks.seed", config.networks.seed)):
        check(0 <= seed < 2**32, field, seed, "from 0 to 2**32 - 1")
    around = config.networks.neighbourhood
    check(around > 0 and around % 2 == 1, "networks.neighbourhood", around, "odd and positive")
    _validate_data(config.data)
    check(len(mapping.latent) > 0, "mapping.latent", mapping.latent, "at least one level")
    check(set(mapping.latent) <= set(LEVELS), "mapping.latent", mapping.latent, f"among {LEVELS}")
    check(
        mapping.directions in (DIRECTIONS, DIRECTIONS[:1], DIRECTIONS[1:]),
        "mapping.directions",
        mapping.directions,
        f"{DIRECTIONS} or one of them, as a tuple",
    )
    check(train.sampling in SAMPLINGS, "train.sampling", train.sampling, f"one of {SAMPLINGS}")
    check(train.schedule in SCHEDULES, "train.schedule", train.schedule, f"one of {SCHEDULES}")
    for field, part in (("train", train), ("scoring", config.scoring)):
        one_of = f"one of {PRECISIONS}"
        check(part.precision in PRECISIONS, f"{field}.precision", part.precision, one_of)
    for field in ("batch_size", "steps", "epochs", "checkpoint_every"):
        check(getattr(train, field) > 0, f"train.{field}", getattr(train, field), "positive")
    for field in ("latent", "positions", "learning_rate"):
        per_level = mapping.latent if field == "latent" else getattr(train, field)
        place = f"mapping.{field}" if field == "latent" else f"train.{field}"
        check(set(mapping.latent) <= set(per_level), place, per_level, "given for every level")
        finite = all(0 < v < math.inf for v in per_level.values())
        check(finite, place, per_level, "positive and finite")
    smoothing = config.scoring.smoothing
    check(0 <= smoothing < 0.5, "scoring.smoothing", smoothing, "from 0 to below 0.5")
    check(train.candidates >= 0, "train.candidates", train.candidates, "zero or more")
    check(0 <= train.warmup < 1, "train.warmup", train.warmup, "from 0 to below 1")
    check(0 <= train.beta2 < 1, "train.beta2", train.beta2, "from 0 to below 1")
    check(train.weight_decay >= 0, "train.weight_decay", train.weight_decay, "zero or more")


def _check(ok: bool, field: str, value: object, wanted: str) -> None:
    if not ok:
        raise InputError(f"config.{field}={value!r}: must be {wanted}")


def _validate_data(data: DataConfig) -> None:
    size, tile, overlap = data.image_size, data.tile_size, data.tile_overlap
    _check(size > 0 and size % 16 == 0, "data.image_size", size, "a positive multiple of 16")
    fits = 0 <= tile <= size and tile % 16 == 0
    _check(fits, "data.tile_size", tile, f"0, or a multiple of 16 up to {size}, the image's size")
    fits = 0 <= overlap < (tile or overlap + 1)
    _check(fits, "data.tile_overlap", overlap, "zero or more, and less than a tile")
    _check(0 <= data.held_out < 1, "data.held_out", data.held_out, "from 0 to below 1")


PARTS = {
    "data": DataConfig,
    "networks": NetworksConfig,
    "mapping": MappingConfig,
    "train": TrainConfig,
    "scoring": ScoringConfig,
}


def from_dict(values: dict[str, Any]) -> Config:
    """The inverse of `dataclasses.asdict`, also after a passage through JSON.

    Raises:
        KeyError: a field is missing or unknown; the values are of another version.
    """
    parts = {}
    for name, kind in PARTS.items():
        if set(values[name]) != {field.name for field in dataclasses.fields(kind)}:
            raise KeyError(name)
        parts[name] = kind(**values[name])
    config = Config(name=values["name"], seed=values["seed"], **parts)
    config.mapping.directions = tuple(config.mapping.directions)
    return config
