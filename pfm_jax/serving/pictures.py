"""Pictures of scored images: anomaly maps, and overlays, each at its image's own size."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pfm_jax.datasets import decoding, images
from pfm_jax.datasets.entries import read
from pfm_jax.evaluation import figures
from pfm_jax.system import files
from pfm_jax.system.files import shown
from pfm_jax.types import InputError

SUFFIXES = {"maps": "tiff", "masks": "png", "overlays": "png"}


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
    places = drawing.places(path)
    if not places:
        return ""
    anomaly_map = images.map_at(small, size)
    if "maps" in places:
        files.write(places["maps"], figures.encode(anomaly_map, "tiff"))
    if "masks" in places:
        over = drawing.threshold is not None and score > drawing.threshold
        marked = anomaly_map > (drawing.threshold if over else np.inf)
        files.write(places["masks"], figures.encode(255 * marked.astype(np.uint8), "png"))
    if "overlays" in places:
        try:
            content, name = read(path), shown(path)
            image = np.asarray(decoding.decode(content, name, drawing.value_range).image)
        except InputError as error:
            return str(error)
        if image.shape[:2] != anomaly_map.shape:
            return f"{name}: changed while it was scored"
        picture = figures.overlay(image, anomaly_map, drawing.threshold, score)
        files.write(places["overlays"], picture)
    return ""
