"""Synthetic defects on normal images, for model selection without test images.

Five kinds (`KINDS`), from specks to large areas and barely visible to obvious, on the object rather
than beside it. A defect without visible effect (blur on a plain surface) is redrawn elsewhere.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter
from scipy import ndimage

KINDS = ("cut_paste", "texture", "blur", "scratch", "colour")
VISIBLE_DIFFERENCE = 5  # minimum difference of a defect pixel from the original, in grey levels
MIN_CHANGED_FRACTION = 4e-4  # of pixels, clearly; the best attempt is used if none reaches it
MAX_ATTEMPTS = 20  # per defect

Array = np.ndarray
Rng = np.random.Generator


def make(kind: str, image: Array, donor: Array, rng: Rng) -> tuple[Array, Array]:
    """Draws a synthetic defect on a normal image.

    Args:
        kind: one of `KINDS`.
        image: normal image to change, uint8 `[H, W, 3]`.
        donor: another normal image of that size.
        rng: source of randomness, advanced in place.

    Returns:
        The image with the defect, and the mask of visible change, bool `[H, W]`.
    """
    best, most = (image, np.zeros(image.shape[:2], bool)), -1
    # Surface texture masks a defect: only a change that exceeds it is noticed.
    hidden = VISIBLE_DIFFERENCE + _low(np.abs(image - _low(image, 0.03))[..., 1], 0.06)
    add = _tinted if kind in ("scratch", "colour") else _replaced
    for _ in range(MAX_ATTEMPTS):
        mixed = (image + add(kind, image, donor, hidden, rng)).round().clip(0, 255).astype(np.uint8)
        difference = np.abs(mixed.astype(np.int16) - image).max(-1)
        if (clear := int((difference >= hidden).sum())) > most:
            best, most = (mixed, difference >= VISIBLE_DIFFERENCE), clear
        if most >= MIN_CHANGED_FRACTION * hidden.size:
            break
    return best


def _tinted(kind: str, image: Array, donor: Array, hidden: Array, rng: Rng) -> Array:
    """Residual of a stain, scratch, dent or bump, float32 `[H, W, 3]`."""
    place, lit, turn = _place(image, rng), rng.random() < 0.3, rng.uniform(0, 2 * np.pi)
    shape = _lines(image, place, rng) if kind == "scratch" else _blob(image, place, 0.01, rng)
    if lit:  # Relief lit from one side: one slope bright, the other dark.
        down, right = np.gradient(shape, axis=(0, 1))
        shape = np.cos(turn) * right + np.sin(turn) * down
        shape /= max(np.abs(shape).max(), 1e-6)
    # Confined to the material: fades at pixels brighter or darker than the defect's centre.
    low, here = _low(image, 0.02)[..., 1], (int(place.imag), int(place.real))
    material = np.exp(-(((low - low[here]) / (1.5 * low.std() + 1)) ** 2))
    # Most are dark. Only stains change hue noticeably, and none in a grey image.
    hue = (0.3 if kind == "colour" and not lit else 0.05) * (image != image[..., :1]).any()
    tint = rng.choice([-1, 1], p=[0.65, 0.35]) + rng.normal(0, hue, 3)
    tint *= min(10 ** rng.random() * hidden[here], 100) / np.abs(tint).max()
    return np.asarray(shape * material[..., None] * tint, np.float32)


def _replaced(kind: str, image: Array, donor: Array, hidden: Array, rng: Rng) -> Array:
    """Residual of a smear, foreign structure or distortion, float32 `[H, W, 3]`."""
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
        # Matching the local coarse brightness, fully or partly, hides the edge.
        other += fitted * (_low(image, 0.08) - _low(other.astype(np.uint8), 0.08))
    return np.asarray(rng.uniform(0.7, 1) * _blob(image, place, 0.045, rng) * (other - image))


def _grid(image: Array) -> Array:
    return np.arange(image.shape[1]) + 1j * np.arange(image.shape[0])[:, None]


def _sampled(image: Array, grid: Array) -> Array:
    """Samples the image at these positions, mirrored at its border, float32."""
    at = [grid.real, grid.imag]
    return np.stack([ndimage.map_coordinates(c, at, np.float32, 1, "mirror") for c in image.T], -1)


def _low(image: Array, part: float) -> Array:
    """Low-pass filters the image at a scale of `part` of its side, float32."""
    size = [max(2, round(n / part / min(image.shape[:2]))) for n in image.shape[1::-1]]
    small = Image.fromarray(image).resize(size, Image.Resampling.BOX)
    return np.asarray(small.resize(image.shape[1::-1], Image.Resampling.BICUBIC), np.float32)


def _noise(image: Array, part: float, rng: Rng) -> Array:
    """Smooth unit-variance noise at a scale of `part` of the side, float32 `[H, W]`."""
    noise = _low(rng.standard_normal(image.shape[:2], np.float32), part)
    return np.asarray(noise / noise.std())


def _place(image: Array, rng: Rng) -> complex:
    """Random position, column + i row, likelier where it differs from border or surroundings."""
    coarse = np.asarray(Image.fromarray(image).convert("L").resize((64, 64)), np.float64)
    border = np.median(np.concatenate([coarse[[0, -1]], coarse[:, [0, -1]].T]))
    unlike = np.abs(coarse - border) + np.abs(coarse - ndimage.gaussian_filter(coarse, 3))
    weight = unlike.ravel() ** 2 + 0.005 * unlike.max() ** 2 + 1e-6
    cell = divmod(int(rng.choice(weight.size, p=weight / weight.sum())), 64)
    return complex(*(np.array(cell[::-1]) + rng.random(2)) / 64 * image.shape[1::-1])


def _blob(image: Array, place: complex, least: float, rng: Rng) -> Array:
    """Random region, compact to ragged, float32 `[H, W, 1]` in [0, 1].

    Its radius is log-uniform from `least` to 25% of the side; its edge, 0.2 to 1.4 of that.
    """
    radius, stretch = least * (0.25 / least) ** rng.random(), rng.uniform(1, 1.7)
    unit = radius * min(image.shape[:2]) * np.exp(1j * rng.uniform(0, np.pi))
    offset = (_grid(image) - place) / unit
    distance = np.hypot(offset.real / stretch, offset.imag * stretch)
    rough = rng.uniform(0.1, 0.4) * (distance < 1.6)  # No specks far from the region.
    distance += rough * (_noise(image, radius, rng) + _noise(image, radius / 3, rng))
    shape = ((1 - distance) / (0.2 * 7 ** rng.random())).clip(0, 1).astype(np.float32)
    return np.asarray(ndimage.gaussian_filter(shape, 0.5 + 0.001 * min(shape.shape)))[..., None]


def _lines(image: Array, place: complex, rng: Rng) -> Array:
    """One to four crooked, partly worn lines, 4 to 50% of the side long, float32 `[H, W, 1]`."""
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
