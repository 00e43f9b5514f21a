"""The training problem: what follows from a recipe and a number of images."""

import dataclasses

from pfm_jax.config import Config, MappingConfig, TrainConfig
from pfm_jax.model import tiles
from pfm_jax.model.tiles import Tiles
from pfm_jax.system import devices
from pfm_jax.types import STRIDES


@dataclasses.dataclass(frozen=True, slots=True)
class Problem:
    """Static argument of the training programs, derived once; see `make_problem`.

    Attributes:
        train: the recipe of training, its precision resolved for this machine.
        positions: (level, positions of a tile) for each level.
        num_tiles: tiles of all training images; to training, a tile is an image.
        total_steps: steps of a whole run.
    """

    mapping: MappingConfig
    train: TrainConfig
    tiles: Tiles
    positions: tuple[tuple[str, int], ...]
    num_tiles: int
    total_steps: int

    @property
    def levels(self) -> tuple[str, ...]:
        """Levels that are mapped."""
        return tuple(level for level, _ in self.positions)

    @property
    def row_counts(self) -> dict[str, int]:
        """Level -> rows of a data set's features."""
        return {level: self.num_tiles * count for level, count in self.positions}


def make_problem(config: Config, num_images: int) -> Problem:
    """Derives the problem of training a recipe on `num_images` images.

    Steps in all are `train.steps`, or `train.epochs` times the batches that hold all tiles.
    """
    cut = tiles.training_tiles(config.data)
    num_tiles = num_images * len(tiles.corners(cut))
    train, steps = config.train, config.train.steps
    if train.sampling == "images":
        steps = train.epochs * -(-num_tiles // train.batch_size)
    precision = devices.resolve_precision(train.precision)
    return Problem(
        mapping=config.mapping,
        train=dataclasses.replace(train, precision=precision),
        tiles=cut,
        positions=tuple((level, (cut.size // STRIDES[level]) ** 2) for level in config.levels),
        num_tiles=num_tiles,
        total_steps=steps,
    )
