"""Defects made up on normal images, to choose by what has to do without test images.

Five kinds (`KINDS`), each in a small region of random shape whose place is drawn where the image
has contrast, so that it lies on the part and not beside it. What a kind can't change (a blur of a
plain surface) is drawn again elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

KINDS = ("cut_paste", "texture", "blur", "scratch", "colour")

VISIBLE = 8
"""Grey levels by which a pixel of a defect differs at least."""

LEAST = 2e-4
"""The part of the image's pixels that are visibly changed at least, if any try gives so many."""

TRIES = 20

Change = Callable[[np.ndarray, np.ndarray, np.random.Generator], np.ndarray]
"""An image and a donor `[H, W, 3]` -> the image as it would be if all of it were changed."""


def make(
    kind: str, image: np.ndarray, donor: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """A defect on a normal image.

    Args:
        kind: one of `KINDS`.
        image: uint8 `[H, W, 3]`.
        donor: another normal image of this size.
        rng: is drawn from.

    Returns:
        The image with the defect, uint8 `[H, W, 3]`, and where it differs visibly, bool `[H, W]`.
    """
    best, most = (image, np.zeros(image.shape[:2], bool)), -1
    for _ in range(TRIES):
        alpha = rng.uniform(0.4, 1) * (_line if kind == "scratch" else _blob)(image, rng)[..., None]
        changed = CHANGES[kind](image, donor, rng).astype(np.float32)
        mixed = (image + alpha * (changed - image)).round().clip(0, 255).astype(np.uint8)
        mask = np.abs(mixed.astype(int) - image).max(-1) >= VISIBLE
        if mask.sum() > most:
            best, most = (mixed, mask), int(mask.sum())
        if most >= LEAST * mask.size:
            break
    return best


def _centre(image: np.ndarray, rng: np.random.Generator) -> tuple[int, int]:
    """Row and column, likelier where the image differs from a blurred one."""
    grey = Image.fromarray(image).convert("L")
    blurred = grey.filter(ImageFilter.GaussianBlur(4))
    contrast = np.abs(np.asarray(grey, np.float32) - np.asarray(blurred, np.float32))
    weight = contrast.astype(np.float64).ravel() + 1e-3
    return divmod(int(rng.choice(weight.size, p=weight / weight.sum())), image.shape[1])


def _blob(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A soft-edged region, float32 `[H, W]` in [0, 1]: 2 to 30% of the side in radius, small ones
    as often as large ones."""
    row, column = _centre(image, rng)
    radius = 0.02 * 15 ** rng.random() * image.shape[0]
    angles = np.linspace(0, 2 * np.pi, 12, endpoint=False)
    radii = radius * rng.uniform(0.5, 1.2, 12)
    stretch = rng.uniform(0.4, 1.0)
    points = np.stack([radii * np.cos(angles), stretch * radii * np.sin(angles)], 1)
    turn = rng.uniform(0, np.pi)
    points = points @ np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])
    return _drawn(image, lambda pen: pen.polygon([(column + x, row + y) for x, y in points], 255))


def _line(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A crooked line, float32 `[H, W]` in [0, 1]: 6 to 60% of the side in length, short ones
    as often as long ones."""
    row, column = _centre(image, rng)
    steps, turn = 6, rng.uniform(0, 2 * np.pi)
    length = 0.06 * 10 ** rng.random() * image.shape[0] / steps
    turns = turn + np.cumsum(rng.normal(0, 0.35, steps))
    xs = column + np.concatenate([[0], np.cumsum(length * np.cos(turns))])
    ys = row + np.concatenate([[0], np.cumsum(length * np.sin(turns))])
    width = int(rng.integers(1, 3))
    return _drawn(image, lambda pen: pen.line(list(zip(xs, ys, strict=True)), 255, width))


def _drawn(image: np.ndarray, draw: Callable[[ImageDraw.ImageDraw], None]) -> np.ndarray:
    canvas = Image.new("L", (image.shape[1], image.shape[0]))
    draw(ImageDraw.Draw(canvas))
    return np.asarray(canvas.filter(ImageFilter.GaussianBlur(0.7)), np.float32) / 255


def _shifted(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return np.roll(image, rng.integers(0, image.shape[0], 2), (0, 1))


def _cut_paste(image: np.ndarray, donor: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return _shifted(donor, rng)


def _texture(image: np.ndarray, donor: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image itself, turned, moved and at another scale."""
    factor = rng.choice([0.5, 0.7, 1.5, 2.0])
    size = [round(factor * side) for side in image.shape[1::-1]]
    turned = np.rot90(np.asarray(Image.fromarray(image).resize(size)), int(rng.integers(1, 4)))
    repeats = [-(-want // have) for want, have in zip(image.shape, turned.shape, strict=True)]
    return _shifted(np.tile(turned, repeats)[: image.shape[0], : image.shape[1]], rng)


def _blur(image: np.ndarray, donor: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    radius = rng.uniform(0.006, 0.016) * image.shape[0]
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(radius)))


def _scratch(image: np.ndarray, donor: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return image + rng.choice([-1, 1]) * rng.uniform(25, 90)


def _colour(image: np.ndarray, donor: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    grey = image.std(-1).max() == 0
    shift = rng.uniform(-60, 60, 1 if grey else 3)
    return image + shift + 2 * VISIBLE * np.sign(shift)


CHANGES: dict[str, Change] = {
    "cut_paste": _cut_paste,
    "texture": _texture,
    "blur": _blur,
    "scratch": _scratch,
    "colour": _colour,
}
