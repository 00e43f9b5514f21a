"""What maps are measured by, position by position: what they are on normal images."""

from __future__ import annotations

import dataclasses
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pfm_jax import files, scoring, sharding
from pfm_jax.config import Config
from pfm_jax.features import Networks
from pfm_jax.mapping import FoldedHeads
from pfm_jax.types import Example, InputError, Standard

FILE = "standard.npz"

LEAST, MOST = 16, 256
"""Training images that are asked for; that are looked at, evenly spread over all."""

SMOOTHING = 1 / 32
"""Of mean and deviation, as `ScoringConfig.smoothing` is of maps."""

FLOORS = 0.1, 1e-3
"""Of the average deviation, and of the average mean: where images are alike, nothing is divided by
less."""


def check(config: Config, num_images: int, where: str = "") -> None:
    """Raises InputError, which begins with `where`: too few images to tell a deviation from."""
    if config.scoring.standardize and num_images < LEAST:
        raise InputError(
            f"{where}config.scoring.standardize=True needs {LEAST} training images, there are "
            f"{num_images}"
        )


def measured(
    networks: Networks, heads: FoldedHeads, train: Sequence[Example], config: Config
) -> FoldedHeads:
    """The heads, with mean and deviation of the fused map at each position, over training images,
    if `config.scoring.standardize` asks for it.

    Held-out images are left alone: a threshold is only good for images that had no part in what
    they are scored by.

    Raises:
        InputError: see `check`; or an image that can't be read.
    """
    if not config.scoring.standardize:
        return heads
    check(config, len(train))
    plane = jnp.zeros((config.data.image_size,) * 2)
    # By nothing, for now: with it one program does this and all that comes after.
    nothing = sharding.everywhere(Standard(plane, plane + 1))
    heads = dataclasses.replace(heads, standard=nothing)
    chosen = np.linspace(0, len(train) - 1, min(len(train), MOST)).round().astype(int)
    some = [train[int(index)] for index in chosen]
    total = squares = np.zeros(plane.shape)
    for found in scoring.score_examples(networks, heads, some, config, "standard"):
        maps = np.asarray(found.fused, np.float64)
        total, squares = total + maps.sum(0), squares + (maps**2).sum(0)
    mean = total / len(some)
    deviation = np.sqrt(np.maximum(squares / len(some) - mean**2, 0))
    both = jnp.asarray(np.stack([mean, deviation]), jnp.float32)
    mean, deviation = np.asarray(scoring.smoothed(both, SMOOTHING))
    floor = max(FLOORS[0] * deviation.mean(), FLOORS[1] * mean.mean(), scoring.TINY)
    deviation = np.maximum(deviation, floor)
    return dataclasses.replace(heads, standard=sharding.everywhere(Standard(mean, deviation)))


def write(standard: Standard | None, folder: Path) -> None:
    """Keeps it in a run's folder, if there is one."""
    if standard is not None:
        content = io.BytesIO()
        np.savez(content, mean=standard.mean, deviation=standard.deviation)
        files.write(folder / FILE, content.getvalue())


def restored(heads: FoldedHeads, folder: Path, config: Config) -> FoldedHeads:
    """The heads with what `write` wrote. Raises InputError: it is missing or damaged."""
    if not config.scoring.standardize:
        return heads
    try:
        content = io.BytesIO((folder / FILE).read_bytes())
        with np.load(content, allow_pickle=False) as arrays:
            found = Standard(arrays["mean"], arrays["deviation"])
        if any(array.shape != (config.data.image_size,) * 2 for array in found):
            raise ValueError("of another size")
    except (OSError, EOFError, KeyError, TypeError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{folder / FILE}: not readable ({error}); give the run's launch.evaluate again"
        ) from error
    return dataclasses.replace(heads, standard=sharding.everywhere(found))


def shapes(config: Config) -> Standard | None:
    """What `measured` would add, by shapes alone."""
    plane: Any = jax.ShapeDtypeStruct((config.data.image_size,) * 2, np.float32)
    return Standard(plane, plane) if config.scoring.standardize else None
