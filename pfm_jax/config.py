"""The recipe: one typed, frozen config tree. Every default is written here, once.

A recipe file in `configs/` states what differs. Configs hash by value, so that they can be static
arguments of `jit`. (Annotations are not deferred here: flags read the types.)
"""

import dataclasses
import json
from typing import Any

from pfm_jax.methods import KINDS, Baseline
from pfm_jax.types import DIRECTIONS, LEVELS, MEMORY

MAPPED = ("conv2_x", "conv3_x>conv4_x", "conv4_x<conv3_x", "conv4_x>conv4_x")  # of the default
KNOWN = (*MAPPED, *LEVELS[1:])


def _by_value(config: object) -> int:
    return hash(repr(config))


def _each(levels: tuple[str, ...], *values: float) -> Any:
    """A field whose default is a value for each level."""
    return dataclasses.field(default_factory=lambda: dict(zip(levels, values, strict=True)))


@dataclasses.dataclass(frozen=True, slots=True)
class DataConfig:
    """Data set and input size.

    Attributes:
        dataset: a name in `datasets.NAMES`, for instance `"mvtec_ad"` (any category in its layout).
        image_size: side of the square that images are resized to, in pixels; a multiple of the
            strides of all stages in use: of 16 with three levels, of 14 with DINOv2.
        tile_size: side of the tiles that the networks see, likewise; 0: the whole image.
        tile_overlap: overlap of neighbouring tiles when scoring, in pixels.
        shots: normal images used, drawn by the run's seed; 0: all. The others are not used, not
            even for the threshold.
        held_out: fraction of the normal images kept from training, whose scores set the threshold.
            Unless `shots` are drawn: the same for every seed, or those the data set holds out.
        value_range: value of white in grey images of more than 8 bits (1023 for 10 bits) and in
            floating-point ones; 0: that of the file's tags, else 65535 or 1.
    """

    dataset: str = "mvtec_ad"
    image_size: int = 256
    tile_size: int = 0
    tile_overlap: int = 64
    shots: int = 0
    held_out: float = 0.1
    value_range: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class NetworksConfig:
    """The two frozen networks.

    Attributes:
        source: name of the source network (SNN in the paper), one of `backbones.NAMES`.
        target: name of the target network (TNN), likewise; may be the source itself, whose stages
            are then mapped to each other.
        pretrained: published weights, else random ones (the control of Table VII, case 9).
        seed: seed of random weights.
        neighbourhood: side, in positions, of the square that features are averaged over; odd, 1 for
            none. Larger suits surfaces and harms parts whose defects are as small as a position.
    """

    source: str = "resnet34"
    target: str = "resnet50"
    pretrained: bool = True
    seed: int = 0
    neighbourhood: int = 1


@dataclasses.dataclass(frozen=True, slots=True)
class MappingConfig:
    """The mapping heads.

    Attributes:
        latent: level -> c of Table II; its keys are the levels that are mapped: a stage of both
            networks (`"conv4_x"`), or one of the source and one of the target (`"4-7:8-11"`).
        directions: `("forward",)` for PFM, both for B-PFM (one level) and MB-PFM (three); of levels
            whose names tell none (as `"conv3_x>conv4_x"` and `"conv4_x<conv3_x"` do).
        normalize_prediction: whether the heads' outputs are L2-normalised (eq. 7, 11).
    """

    latent: dict[str, int] = _each(MAPPED, 200, 400, 400, 900)
    directions: tuple[str, ...] = DIRECTIONS
    normalize_prediction: bool = True

    __hash__ = _by_value


@dataclasses.dataclass(frozen=True, slots=True)
class TrainConfig:
    """Optimisation of the heads.

    Attributes:
        sampling: `"positions"` draws random positions of all images, `"images"` whole images, each
            once an epoch.
        positions: level -> positions a step, for `"positions"`.
        batch_size: images a step, for `"images"`.
        steps: total steps, for `"positions"`.
        epochs: passes over the images, for `"images"`.
        learning_rate: level -> peak rate of Adam.
        warmup: fraction of all steps in which the rate rises from zero to its peak.
        schedule: after the warm-up `"constant"`, or decay to zero at the last step, `"cosine"` or
            `"linear"`.
        beta2: Adam's decay of the second moment.
        weight_decay: L2 added to the gradient, as in torch's Adam.
        precision: operand type of the heads' products, `"float32"`, `"bfloat16"`, or `"auto"` for
            bfloat16 where the device has units for it. Everything else is float32.
        checkpoint_every: steps between checkpoints.
        checkpoint_seconds: time that has to pass between them, at least.
    """

    sampling: str = "positions"
    positions: dict[str, int] = _each(KNOWN, 1024, 512, 512, 256, 512, 256)
    batch_size: int = 8
    steps: int = 2000
    epochs: int = 200
    learning_rate: dict[str, float] = _each(KNOWN, 1e-2, 5e-3, 5e-3, 4e-3, 5e-3, 4e-3)
    warmup: float = 0.2
    schedule: str = "linear"
    beta2: float = 0.99
    weight_decay: float = 0.0
    precision: str = "auto"
    checkpoint_every: int = 250
    checkpoint_seconds: float = 10.0

    __hash__ = _by_value


@dataclasses.dataclass(frozen=True, slots=True)
class ScoringConfig:
    """Image scoring.

    Attributes:
        precision: `"float32"`; `"bfloat16"` for networks and heads; or `"auto"`: networks in
            float32, the heads' products in bfloat16 where the device has units for it.
        expected: divide each residual by the one to expect there (`training.expectation`).
        relative: level -> power of its own mean that its map is divided by instead.
        memory: one more map, `"memory"`: distance to normal features there (`model.patches`).
        weights: level, or `"memory"` -> weight in the mean of the maps, where others have 1.
        fusion: `"geometric"` or `"arithmetic"` mean of the maps.
        smoothing: standard deviation of the Gaussian that smooths the fused map, as a fraction of
            the image's side; 0 for none.
        sharpness: of the `scoring.soft_maximum` over pixels that scores an image; 0: the maximum.
    """

    precision: str = "auto"
    expected: bool = True
    relative: dict[str, float] = _each(MAPPED[:1], 1.5)
    memory: bool = True
    weights: dict[str, float] = _each((*MAPPED, MEMORY), 2.5, 0.875, 1.25, 0.75, 4.0)
    fusion: str = "geometric"
    smoothing: float = 1 / 64
    sharpness: float = 16.0

    __hash__ = _by_value


PAPER_SCORING = ScoringConfig(
    expected=False,
    relative={},
    memory=False,
    weights={},
    fusion="arithmetic",
    smoothing=0.0,
    sharpness=0.0,
)
"""The paper's: the mean of the levels' residuals, and its maximum (eq. 9, 15)."""

BASELINE_SCORING = dataclasses.replace(PAPER_SCORING, smoothing=1 / 64)  # of its one map


@dataclasses.dataclass(frozen=True, slots=True)
class Config:
    """A recipe: everything that decides the numbers of a run, except data and weights.

    Attributes:
        baseline: another method in place of the mapping, which alone uses `mapping`.
    """

    name: str = "mb_pfm"
    seed: int = 0
    baseline: Baseline | None = None
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    networks: NetworksConfig = dataclasses.field(default_factory=NetworksConfig)
    mapping: MappingConfig = dataclasses.field(default_factory=MappingConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    scoring: ScoringConfig = dataclasses.field(default_factory=ScoringConfig)

    @property
    def levels(self) -> tuple[str, ...]:
        """Levels that are mapped, or the stages that a baseline sees."""
        return self.mapped if self.baseline is None else self.baseline.stages

    @property
    def mapped(self) -> tuple[str, ...]:
        """Levels that are mapped, which have maps of their own; none by a baseline."""
        return tuple(self.mapping.latent) if self.baseline is None else ()

    @property
    def maps(self) -> tuple[str, ...]:
        """Names of the maps that are fused."""
        return (*self.mapped, *(MEMORY,) * self.scoring.memory)


@dataclasses.dataclass(frozen=True, slots=True)
class SweepConfig:
    """Recipes that differ from `base` in a few fields.

    `cases`: name -> dotted field of the base (`"networks.source"`) -> its value in the case.
    """

    name: str = "sweep"
    base: Config = dataclasses.field(default_factory=Config)
    cases: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)


PARTS: dict[str, Any] = {
    field.name: field.type
    for field in dataclasses.fields(Config)
    if dataclasses.is_dataclass(field.type)
}
"""Field of a `Config` -> its type, of those that are configs themselves."""


def to_dict(config: Config | SweepConfig) -> dict[str, Any]:
    """Nested dictionaries, as JSON holds them."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(values: dict[str, Any]) -> Config:
    """Inverse of `to_dict`. Raises KeyError: a field is missing or unknown, of another version."""
    parts = {name: _read(name, kind, values[name]) for name, kind in PARTS.items()}
    if own := values["baseline"]:
        parts["baseline"] = _read("baseline", KINDS[own["method"]], own)
    return Config(name=values["name"], seed=values["seed"], **parts)


def _read(name: str, kind: Any, values: dict[str, Any]) -> Any:
    """Settings of a class; its tuples are lists in JSON."""
    fields = dataclasses.fields(kind)
    if set(values) != {field.name for field in fields}:
        raise KeyError(name)
    own = {field.name: values[field.name] for field in fields if field.init}
    return kind(**{k: tuple(v) if isinstance(v, list) else v for k, v in own.items()})
