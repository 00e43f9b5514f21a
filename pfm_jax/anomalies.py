"""Defects made up on normal images, to choose by what has to do without test images.

Five kinds (`KINDS`), specks to large areas, barely visible to plain, on the part and not beside it.
What a kind can't change (a blur of a plain surface) is drawn again elsewhere.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage

KINDS = ("cut_paste", "texture", "blur", "scratch", "colour")

VISIBLE = 5
"""Grey levels by which a pixel of a defect differs at least."""

LEAST = 4e-4
"""The part of the image's pixels that are clearly changed at least, if any try gives so many."""

TRIES = 20
Array = np.ndarray
Rng = np.random.Generator


def make(kind: str, image: Array, donor: Array, rng: Rng) -> tuple[Array, Array]:
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
    # What a surface does by itself hides a defect: only what exceeds that is noticed.
    hidden = VISIBLE + _low(np.abs(image - _low(image, 0.03))[..., 1], 0.06)
    add = _tinted if kind in ("scratch", "colour") else _replaced
    for _ in range(TRIES):
        mixed = (image + add(kind, image, donor, hidden, rng)).round().clip(0, 255).astype(np.uint8)
        difference = np.abs(mixed.astype(np.int16) - image).max(-1)
        if (clear := int((difference >= hidden).sum())) > most:
            best, most = (mixed, difference >= VISIBLE), clear
        if most >= LEAST * hidden.size:
            break
    return best


def _tinted(kind: str, image: Array, donor: Array, hidden: Array, rng: Rng) -> Array:
    """What a stain, a scratch, a dent or a bump adds to the image, float32 `[H, W, 3]`."""
    place, lit, turn = _place(image, rng), rng.random() < 0.3, rng.uniform(0, 2 * np.pi)
    shape = _lines(image, place, rng) if kind == "scratch" else _blob(image, place, 0.01, rng)
    if lit:  # Its slopes in light from one side: bright here, dark there.
        down, right = np.gradient(shape, axis=(0, 1))
        shape = np.cos(turn) * right + np.sin(turn) * down
        shape /= max(np.abs(shape).max(), 1e-6)
    # It ends where the material does: at what is brighter or darker than its own place.
    low, here = _low(image, 0.02)[..., 1], (int(place.imag), int(place.real))
    material = np.exp(-(((low - low[here]) / (1.5 * low.std() + 1)) ** 2))
    # Most are dark. Only stains have another hue, and none in a grey image.
    hue = (0.3 if kind == "colour" and not lit else 0.05) * (image != image[..., :1]).any()
    tint = rng.choice([-1, 1], p=[0.65, 0.35]) + rng.normal(0, hue, 3)
    tint *= min(10 ** rng.random() * hidden[here], 100) / np.abs(tint).max()
    return np.asarray(shape * material[..., None] * tint, np.float32)


def _replaced(kind: str, image: Array, donor: Array, hidden: Array, rng: Rng) -> Array:
    """What smears, other structure or a distortion add to the image, float32 `[H, W, 3]`."""
    side, place, grid = min(hidden.shape), _place(image, rng), _grid(image)
    if kind == "blur":
        blur = ImageFilter.GaussianBlur(tuple(0.5 + 0.003 * 7 ** rng.random(2) * side))
        other = np.asarray(Image.fromarray(image).filter(blur), np.float32)
    elif kind == "texture" and rng.random() < 0.5:
        part = 0.03 * 5 ** rng.random()
        bent = _noise(image, part, rng) + 1j * _noise(image, part, rng)
        other = _sampled(image, grid + rng.uniform(0.15, 0.5) * part * side * bent)
    else:
        zoom = 2 ** rng.uniform(-1.2, 1.2) * np.exp(1j * np.pi * rng.uniform(-1, 1) ** 3)
        source, fitted = (donor, rng.random()) if kind == "cut_paste" else (image, 1)
        other = _sampled(source, _place(source, rng) + (grid - place) * zoom)
        # With the coarse brightness of the place, wholly or in part, no edge shows.
        other += fitted * (_low(image, 0.08) - _low(other.astype(np.uint8), 0.08))
    return np.asarray(rng.uniform(0.7, 1) * _blob(image, place, 0.045, rng) * (other - image))


def _grid(image: Array) -> Array:
    return np.arange(image.shape[1]) + 1j * np.arange(image.shape[0])[:, None]


def _sampled(image: Array, grid: Array) -> Array:
    """The image at these places, mirrored beyond its border, float32."""
    at = [grid.real, grid.imag]
    return np.stack([ndimage.map_coordinates(c, at, np.float32, 1, "mirror") for c in image.T], -1)


def _low(image: Array, part: float) -> Array:
    """The image without structure smaller than this part of its side, float32."""
    size = [max(2, round(n / part / min(image.shape[:2]))) for n in image.shape[1::-1]]
    small = Image.fromarray(image).resize(size, Image.Resampling.BOX)
    return np.asarray(small.resize(image.shape[1::-1], Image.Resampling.BICUBIC), np.float32)


def _noise(image: Array, part: float, rng: Rng) -> Array:
    """Smooth noise with lumps of this part of the side, float32 `[H, W]`."""
    noise = _low(rng.standard_normal(image.shape[:2], np.float32), part)
    return np.asarray(noise / noise.std())


def _place(image: Array, rng: Rng) -> complex:
    """Column + i row, likelier where the image is unlike its border or its surroundings."""
    coarse = np.asarray(Image.fromarray(image).convert("L").resize((64, 64)), np.float64)
    border = np.median(np.concatenate([coarse[[0, -1]], coarse[:, [0, -1]].T]))
    unlike = np.abs(coarse - border) + np.abs(coarse - ndimage.gaussian_filter(coarse, 3))
    weight = unlike.ravel() ** 2 + 0.005 * unlike.max() ** 2 + 1e-6
    cell = divmod(int(rng.choice(weight.size, p=weight / weight.sum())), 64)
    return complex(*(np.array(cell[::-1]) + rng.random(2)) / 64 * image.shape[1::-1])


def _blob(image: Array, place: complex, least: float, rng: Rng) -> Array:
    """A region, float32 `[H, W, 1]` in [0, 1]: `least` to 25% of the side in radius, small ones as
    often as large ones, compact to torn, its edge a fifth of the radius wide to more than all."""
    radius, stretch = least * (0.25 / least) ** rng.random(), rng.uniform(1, 1.7)
    unit = radius * min(image.shape[:2]) * np.exp(1j * rng.uniform(0, np.pi))
    offset = (_grid(image) - place) / unit
    distance = np.hypot(offset.real / stretch, offset.imag * stretch)
    rough = rng.uniform(0.1, 0.4) * (distance < 1.6)  # Without specks far from it.
    distance += rough * (_noise(image, radius, rng) + _noise(image, radius / 3, rng))
    shape = ((1 - distance) / (0.2 * 7 ** rng.random())).clip(0, 1).astype(np.float32)
    return np.asarray(ndimage.gaussian_filter(shape, 0.5 + 0.001 * min(shape.shape)))[..., None]


def _lines(image: Array, place: complex, rng: Rng) -> Array:
    """One to four crooked lines side by side, float32 `[H, W, 1]` in [0, 1]: 4 to 50% of the side
    in length, hairlines to broad ones, fading towards their ends and worn here and there."""
    side, turn, crooked = min(image.shape[:2]), rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.3)
    length, width = 0.04 * 12 ** rng.random() * side, 0.003 * 6 ** rng.random() * side
    canvas = Image.new("L", image.shape[1::-1])
    for _ in range(rng.choice([1, 2, 4], p=[0.7, 0.2, 0.1])):
        steps = np.exp(1j * (turn + np.cumsum(rng.normal(0, crooked, 20)))) * length / 20
        path = place + np.cumsum(steps) - steps[:10].sum()
        for i, fade in enumerate(np.sin(np.linspace(0.3, 2.8, 19))):
            ends = [(p.real, p.imag) for p in path[i : i + 2]]
            ImageDraw.Draw(canvas).line(ends, round(255 * fade), max(1, round(width)))
        place += complex(*rng.normal(0, 0.2 * length, 2))
    drawn = ndimage.gaussian_filter(np.asarray(canvas, float), 0.5 + rng.uniform(0.1, 0.4) * width)
    worn = (1 + rng.uniform(0, 0.6) * _noise(image, 0.04, rng)).clip(0, 1)
    return np.asarray(drawn / max(drawn.max(), 1) * worn, np.float32)[..., None]
