"""Images whose masks lie beside them, all black for a good image."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from pfm_jax.datasets.entries import Entry, read
from pfm_jax.datasets.masks import decode_mask
from pfm_jax.types import InputError


def judged(files: Iterable[Path], mask_ending: str, defect: str) -> list[Entry]:
    """Images, each anomalous if its mask beside it, whose name ends so, marks anything.

    Raises InputError: an image without mask, or a mask without image.
    """
    masks: dict[Path, Path] = {}
    images: dict[Path, Path] = {}
    for path in files:
        name = path.with_suffix("")
        if name.name.endswith(mask_ending):
            masks[name.with_name(name.name.removesuffix(mask_ending))] = path
        else:
            images[name] = path
    if without := sorted(images.keys() - masks.keys()):
        raise InputError(f"{images[without[0]]}: no mask; expected {without[0].name}{mask_ending}")
    if without := sorted(masks.keys() - images.keys()):
        raise InputError(f"{masks[without[0]]}: a mask of no image called {without[0].name}")

    def one(name: Path) -> Entry:
        mask = masks[name]
        if decode_mask(read(mask), str(mask)).marked.any():
            return Entry(images[name], (mask,), 1, defect)
        return Entry(images[name])

    with ThreadPoolExecutor() as pool:
        return list(pool.map(one, sorted(images)))
