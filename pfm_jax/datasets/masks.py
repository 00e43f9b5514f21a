"""Ground-truth masks: files to anomalous pixels, with notes on what is to be doubted about them."""

from __future__ import annotations

import io
from typing import NamedTuple

import numpy as np

from pfm_jax.datasets.decoding import Note, opened
from pfm_jax.types import InputError

LOSSY_FORMATS = ("JPEG", "WEBP", "MPO")
MANY_VALUES = "has {} values where a mask has two; all but 0 mark a defect"
LOSSY = "has {} values where a mask has two (it is compressed); the upper half marks a defect"
ALL_DEFECT = "marks every pixel"
NO_DEFECT = "marks no pixel, though its image is anomalous"


class Mask(NamedTuple):
    """Anomalous pixels, bool `[H, W]`, what is to be said about the file, and its highest value."""

    marked: np.ndarray
    notes: tuple[Note, ...] = ()
    value: int = 0


def decode_mask(encoded: bytes, name: str) -> Mask:
    """Decodes a ground-truth mask.

    What is not 0 marks a defect, in a format that may be lossy what is above half of the highest
    value. Raises InputError: an unreadable file; includes `name`.
    """
    with opened(io.BytesIO(encoded), name) as file:
        lossy = file.format in LOSSY_FORMATS
        if file.mode in ("P", "PA", "LA", "RGBA"):  # what is transparent marks no defect
            rgba = np.asarray(file.convert("RGBA"))
            values = rgba[..., :3].max(-1) * (rgba[..., 3] > 0)
        else:
            pixels = np.asarray(file)
            values = pixels.reshape(*pixels.shape[:2], -1).max(-1)
    if not np.isfinite(values).all():
        raise InputError(f"{name}: has pixels that are not finite numbers (NaN or infinite)")
    found = len(np.unique(values))
    notes = [Note(LOSSY if lossy else MANY_VALUES, found)] if found > 2 else []
    marked = values > values.max() / 2 if lossy else values != 0
    notes += [Note(ALL_DEFECT)] * bool(marked.all())
    return Mask(marked, tuple(notes), int(values.max()))


def to_ignore(mask: np.ndarray, name: str) -> np.ndarray:
    """Checks a mask of what to ignore, not 0 where that is; returns bool `[h, w]`.

    Raises InputError: another shape, or it marks nothing, or everything.
    """
    if mask.ndim != 2:
        raise InputError(f"{name} has shape {mask.shape}: must be [h, w]")
    marked = mask != 0
    if marked.all() or not marked.any():
        extent = "every pixel" if marked.all() else "no pixel"
        raise InputError(f"{name}: marks {extent}; mark the part to be ignored, or leave it out")
    return marked
