"""Pictures of scored images: anomaly maps, and overlays, each at its image's own size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from pfm_jax.datasets import decoding
from pfm_jax.datasets.entries import read
from pfm_jax.evaluation import figures
from pfm_jax.system import files
from pfm_jax.system.files import shown
from pfm_jax.types import InputError

SUFFIXES = {"maps": "tiff", "masks": "png", "overlays": "png"}


class ChangedError(Exception):
    """An image is not the one that was scored."""


class Options(NamedTuple):
    """Optional outputs besides the table."""

    maps: bool = False
    overlays: bool = False
    masks: bool = False


TABLE_ONLY = Options()


class Drawing(NamedTuple):
    """Pictures to draw, and where.

    Attributes:
        names: image -> name of its pictures, without suffix.
        threshold: what is outlined lies above it; None for no outlines.
        value_range: see `decoding.decode`.
    """

    folder: Path
    options: Options
    names: dict[Path, Path]
    threshold: float | None
    value_range: float

    def places(self, image: Path) -> dict[str, Path]:
        """The pictures wanted of an image: kind -> file."""
        wanted = [kind for kind in SUFFIXES if getattr(self.options, kind)]
        return {k: self.folder / k / f"{self.names[image]}.{SUFFIXES[k]}" for k in wanted}


def names(root: Path, paths: Sequence[Path]) -> dict[Path, Path]:
    """Name of each image's pictures: its path relative to `root`, without suffix.

    MVTec's own evaluation expects these names. Images that differ only in suffix keep it.
    """
    stems = Counter(path.with_suffix("") for path in paths)
    unique = {path: path.with_suffix("") for path in paths if stems[path.with_suffix("")] == 1}
    return {path: unique.get(path, path).relative_to(root) for path in paths}


def draw(
    path: Path, size: tuple[int, int], score: float, small: np.ndarray, drawing: Drawing
) -> str:
    """Writes the pictures of an image of this size (width, height); returns why it failed, if so.

    `small` is its anomaly map at the resolution of the network's input.
    """
    try:
        for kind, place in drawing.places(path).items():
            picture = _picture(kind, path, size, score, small, drawing)
            with files.replacing(place) as file:
                picture.save(file, SUFFIXES[kind])
            del picture  # before the next one, which may be as large
    except ChangedError as error:
        return str(error)
    return ""


def _picture(
    kind: str,
    path: Path,
    size: tuple[int, int],
    score: float,
    small: np.ndarray,
    drawing: Drawing,
) -> Image.Image:
    limit = drawing.threshold
    if kind == "maps":
        return Image.fromarray(small).resize(size, Image.Resampling.BILINEAR)
    if kind == "masks":
        return figures.mask(small, size, np.inf if limit is None or score <= limit else limit)
    try:
        grey = decoding.decode(read(path), shown(path), drawing.value_range).image.convert("L")
    except InputError as error:
        raise ChangedError(str(error)) from error
    if grey.size != size:
        raise ChangedError(f"{shown(path)}: changed while it was scored")
    return figures.overlay(grey, small, limit, score)
