"""The data dictionary: every container that passes between modules, with shapes and units.

Shapes are written `[B, H, W, C]`: batch, height, width, channels; `N` images of a split; `P`
positions. A *level* is a stage of a backbone, named after the ResNet stage of the same stride:
`"conv2_x"` (stride 4), `"conv3_x"` (8), `"conv4_x"` (16), whatever the network is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
from jax import Array

LEVELS = ("conv2_x", "conv3_x", "conv4_x")
STRIDES = {"conv2_x": 4, "conv3_x": 8, "conv4_x": 16}

FeaturePyramid = dict[str, Array]
"""Level -> features `[B, h, w, C]` (or rows of positions `[P, C]`), every position of L2 norm 1."""

Params = Any
"""A pytree of arrays: the weights of a network."""


class InputError(ValueError):
    """Bad input from outside: names the file, flag or key and says what to do. Launchers exit 2."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FeaturePair:
    """What the two frozen networks say of the same positions.

    Attributes:
        source: features of the source network (SNN in the paper).
        target: features of the target network (TNN).
    """

    source: FeaturePyramid
    target: FeaturePyramid


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Batch:
    """Positions drawn for one training step.

    Attributes:
        features: float32 rows `[P, C]` per level.
        mask: float32 `[P]` per level; 1 for a real position, 0 for padding.
    """

    features: FeaturePair
    mask: dict[str, Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ScoreMaps:
    """Anomaly scores of a batch.

    Attributes:
        levels: level -> anomaly map `[B, H, W]` at the resolution of the network's input; 0 is
            perfectly mapped, 4 the most that unit vectors can differ.
        fused: `[B, H, W]`, of the mean over levels (eq. 15); see `scoring.fuse` and `Standard`.
        image_scores: `[B]`, the maximum of each fused map (eq. 9).
    """

    levels: dict[str, Array]
    fused: Array
    image_scores: Array


class Standard(NamedTuple):
    """The fused map's mean and deviation `[H, W]` over normal images; see `standard.measured`."""

    mean: Array
    deviation: Array


@dataclasses.dataclass(frozen=True, slots=True)
class Example:
    """One image as it lies in the data set, not yet decoded.

    Attributes:
        path: unique within the category, relative to its root, with forward slashes.
        image: the encoded file.
        mask: the encoded ground truth (non-zero is anomalous); None for a good image, and
            everywhere in a data set without masks.
        label: 0 good, 1 anomalous.
        defect: the name of the kind of defect, `"good"` for none.
    """

    path: str
    image: bytes
    mask: bytes | None
    label: int
    defect: str


@dataclasses.dataclass(frozen=True, slots=True)
class Dataset:
    """One category: good images to learn from, mixed ones to be judged on.

    Attributes:
        category: its name.
        train: good images only, to learn from.
        held_out: good images only, to set the threshold by.
        test: good and anomalous images.
        has_masks: whether pixel metrics can be computed.
        fingerprint: sha256 (hex) of every path and file.
    """

    category: str
    train: Sequence[Example]
    test: Sequence[Example]
    has_masks: bool
    fingerprint: str
    held_out: Sequence[Example] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Metrics:
    """Fractions in [0, 1]; None where the data set has no masks.

    `intervals`: of each AUROC and of PRO, the ends of a 95% bootstrap interval over test images.
    """

    image_auroc: float
    image_ap: float
    pixel_auroc: float | None
    pro_auc: float | None
    intervals: dict[str, list[float]]
