"""The training problem: what follows from a recipe, and a run's extent in the cached features."""

import dataclasses
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from jax import Array

from pfm_jax import backbones
from pfm_jax.config import Config, MappingConfig, TrainConfig
from pfm_jax.model import tiles
from pfm_jax.model.tiles import Tiles
from pfm_jax.system import devices
from pfm_jax.types import Batch, Pair, Params


@runtime_checkable
class Objective(Protocol):
    """Parameters and loss in place of heads'; hashed by value, as a static argument."""

    def init(self, key: Array) -> Params:
        """Level -> fresh parameters."""
        ...

    def loss(
        self, params: Params, batch: Batch, key: Array
    ) -> tuple[Array, tuple[dict[str, Array], Params]]:
        """Sum of the losses; the loss of each level, and the parameters with new statistics."""
        ...


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """Static argument of the training programs, derived once; see `mapping_problem`.

    It knows no data set: one program trains all of them, whatever their sizes; see `Extent`.

    Attributes:
        train: the recipe of training, its precision resolved for this machine.
        positions: (level, positions of a tile) for each level.
        objective: what is learnt; None for heads.
    """

    mapping: MappingConfig
    train: TrainConfig
    tiles: Tiles
    positions: tuple[tuple[str, int], ...]
    objective: Objective | None = None

    @property
    def levels(self) -> tuple[str, ...]:
        """Levels that are mapped."""
        return tuple(level for level, _ in self.positions)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Extent:
    """A run's part of the cached features, and its length; all int32, `[]`.

    Attributes:
        first_tile: index of its first tile in the cache; to training, a tile is an image.
        num_tiles: tiles of all its training images.
        total_steps: steps of the whole run.
    """

    first_tile: Array
    num_tiles: Array
    total_steps: Array


def mapping_problem(config: Config) -> Problem:
    """Derives the problem of training a recipe. Raises InputError: no such network or stage."""
    cut = tiles.training_tiles(config.data)
    precision = devices.resolve_precision(config.train.precision)
    names = Pair(config.networks.source, config.networks.target)
    sides = {level: cut.size // min(backbones.strides(names, level)) for level in config.levels}
    return Problem(
        mapping=config.mapping,
        train=dataclasses.replace(config.train, precision=precision),
        tiles=cut,
        positions=tuple((level, side**2) for level, side in sides.items()),
    )


def make_extent(problem: Problem, num_images: int, first_image: int = 0) -> Extent:
    """Extent of a run on `num_images` images, which lie in the cache from `first_image` on.

    Steps in all are `train.steps` or, of whole images, `train.epochs` times the batches that hold
    all tiles.
    """
    per_image, train = len(tiles.corners(problem.tiles)), problem.train
    num_tiles, steps = num_images * per_image, train.steps
    if train.sampling == "images":
        steps = train.epochs * -(-num_tiles // train.batch_size)
    numbers: Any = np.array([first_image * per_image, num_tiles, steps], np.int32)
    return Extent(*numbers)
