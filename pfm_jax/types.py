"""The data dictionary: every container that passes between modules, with shapes and units.

Shapes are written `[B, H, W, C]`: batch, height, width, channels; `N` images of a split; `P`
positions. A *stage* is a named output of a backbone: of a convolutional one the name of the ResNet
stage of the same stride, `"conv2_x"` (stride 4), `"conv3_x"` (8), `"conv4_x"` (16); of a vision
transformer a block or the mean of several, `"7"`, `"4-7"`, or either minus the class token,
`"4-7-cls"`. A *level* is a pair of stages that are mapped to each other: `"SOURCE:TARGET"`, or the
one name of both; `"SOURCE>TARGET"` is mapped in one direction only, and `"SOURCE<TARGET"` in the
other. A *direction* of mapping is `"forward"` (source to target) or `"backward"`.
"""

from __future__ import annotations

import dataclasses
import re
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import numpy as np
from jax import Array

T = TypeVar("T")

LEVELS = ("conv2_x", "conv3_x", "conv4_x")
STRIDES = {"conv2_x": 4, "conv3_x": 8, "conv4_x": 16}
DIRECTIONS = ("forward", "backward")
MEMORY = "memory"  # name of its map, beside those of the levels
ONE_WAY = {">": ("forward",), "<": ("backward",)}

BLANK = (124, 116, 104)
"""Colour of pixels that are ignored: ImageNet's mean, as networks see the padding of an image."""

FeaturePyramid = dict[str, Array]
"""Stage -> features `[B, h, w, C]` of one network."""

Params = Any
"""Pytree of arrays: the weights of a network."""


class InputError(ValueError):
    """Bad input from outside: names the file, flag or key and says what to do. Launchers exit 2."""


class Pair(NamedTuple, Generic[T]):
    """One thing for each network: the source (SNN in the paper) and the target (TNN)."""

    source: T
    target: T


def stages(level: str) -> Pair[str]:
    """Names of the source's and the target's stage of a level."""
    ends = re.split("[:<>]", level, maxsplit=1)
    return Pair(ends[0], ends[-1])


def directions(level: str, otherwise: tuple[str, ...] = DIRECTIONS) -> tuple[str, ...]:
    """Directions that a level is mapped in: the one that its name tells, or `otherwise`."""
    return next((found for mark, found in ONE_WAY.items() if mark in level), otherwise)


def level_number(level: str) -> int:
    """Number to fold into a key, so that a level's draws depend on no other level."""
    return LEVELS.index(level) if level in LEVELS else zlib.crc32(level.encode())


Features = dict[str, Pair[Array]]
"""Level -> both networks' features at the same positions, `[B, h, w, C]` or rows `[P, C]`, every
position of L2 norm 1. Levels are independent problems."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """Positions drawn for one training step.

    Attributes:
        features: rows `[P, C]` per level, float16 as cached.
        mask: float32 `[P]` per level; 1 for a real position, 0 for padding.
    """

    features: Features
    mask: dict[str, Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ScoreMaps:
    """Anomaly scores of a batch.

    Attributes:
        levels: level -> anomaly map `[B, H, W]` at the resolution of the network's input; 0 is a
            perfect mapping, 4 the largest distance of unit vectors, before any division by what is
            to be expected. `MEMORY` -> distances to the memory, if the recipe has one.
        fused: `[B, H, W]`, the maps of all levels in one (eq. 15); see `scoring.fuse`.
        image_scores: `[B]`, the peak of each fused map (eq. 9); see `scoring.soft_maximum`.
    """

    levels: dict[str, Array]
    fused: Array
    image_scores: Array


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One image as the data set holds it, not yet decoded.

    Attributes:
        path: unique within the category, relative to its root, with forward slashes.
        image: the encoded file.
        mask: the encoded ground truth; None for a good image, and everywhere in a data set
            without masks.
        label: 0 good, 1 anomalous.
        defect: the kind of defect, `"good"` for none.
        value_range: value of white, of images of more than 8 bits; 0 for that of the file.
        regions: encoded masks of which `mask` is the union, where the data set has `saturations`.
        ignored: bool `[h, w]`, stretched over the image: pixels to be blank to training.
    """

    path: str
    image: bytes
    mask: bytes | None
    label: int
    defect: str
    value_range: float = 0.0
    regions: tuple[bytes, ...] = ()
    ignored: np.ndarray | None = dataclasses.field(default=None, compare=False)


class Saturation(NamedTuple):
    """Area of a region that suffices to have found it, for sPRO.

    Attributes:
        threshold: in pixels of the mask, or as a fraction of the region if `is_relative`.
    """

    threshold: float
    is_relative: bool


@dataclasses.dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Images to train on and to test on, of one category or several. Compared by identity.

    Attributes:
        train: good images only, to train on.
        test: good and anomalous images; may lack either or both.
        has_masks: whether anomalous images have masks.
        fingerprint: sha256 (hex) of every path and file of the normal images.
        held_out: good images only, to calibrate the threshold on; the data set's own or drawn.
        test_fingerprint: likewise of the test images and masks.
        warnings: what was passed over, is to be doubted, or can't be measured; names files.
        saturations: value of a mask -> when its region is found; empty: no sPRO.
        ignored: see `Example`; of the whole category.
    """

    category: str
    train: Sequence[Example]
    test: Sequence[Example]
    has_masks: bool
    fingerprint: str
    held_out: Sequence[Example] = ()
    test_fingerprint: str = ""
    warnings: tuple[str, ...] = ()
    saturations: Mapping[int, Saturation] = dataclasses.field(default_factory=dict)
    ignored: np.ndarray | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Metrics:
    """Fractions in [0, 1], as `metrics` defines them.

    None where there are no masks (pixel metrics, PRO, AUPIMO), or test images of one kind only
    (image metrics, AUPIMO).

    Attributes:
        image_f1_max, pixel_f1_max: F1 at the best threshold for the test images.
        pro_auc, pro_auc_05: up to false-positive rates of 0.3 and 0.05.
        spro_auc_05: mean of the kinds of defects, in data sets that define it (MVTec LOCO).
        intervals: 95% bootstrap interval over test images of each AUROC and of `pro_auc`.
    """

    image_auroc: float | None = None
    image_ap: float | None = None
    image_f1_max: float | None = None
    pixel_auroc: float | None = None
    pixel_f1_max: float | None = None
    pro_auc: float | None = None
    pro_auc_05: float | None = None
    aupimo: float | None = None
    spro_auc_05: float | None = None
    intervals: dict[str, list[float]] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class Sources:
    """Locations of data and weights.

    Attributes:
        data_dir: the folder of the categories, or an archive; None for a packaged data set.
        weights_dir: a folder of weights; None for the other places of `backbones.locate`.
    """

    data_dir: str | None = None
    weights_dir: str | None = None

    @property
    def data_path(self) -> Path | None:
        """`data_dir` as a path."""
        return Path(self.data_dir) if self.data_dir else None
