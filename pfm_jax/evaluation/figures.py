"""Text table of metrics, overlays and heat maps; Matplotlib is imported on use."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from pfm_jax.datasets.decoding import saved
from pfm_jax.metrics import NAMES, SELDOM

STRIP_PIXELS = 2**20
"""Pixels drawn at once, so that the memory for a large image is bounded."""


class Panel(NamedTuple):
    """One test image, uint8 `[H, W, 3]`, its ground truth, bool `[H, W]`, and anomaly map `[H, W]`.

    `mask` is None if unknown.
    """

    title: str
    image: np.ndarray
    mask: np.ndarray | None
    anomaly_map: np.ndarray


def encode(array: np.ndarray, kind: str, **options: Any) -> bytes:
    """Encodes an array as an image file, `kind` and options as Pillow names them."""
    return saved(Image.fromarray(array), kind, **options)


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Formats category -> metrics as aligned text in percent, with the mean of the categories."""
    shown = [m for m in NAMES if m not in SELDOM or _mean(results, m) is not None]
    rows = [["category", *(NAMES[m] for m in shown), "seconds"]]
    for category, metrics in results.items():
        seconds = sum(metrics["seconds"].values())
        rows.append([category, *(_percent(metrics[m]) for m in shown), f"{seconds:.0f}"])
    if len(results) > 1:
        rows.append(["mean", *(_percent(_mean(results, metric)) for metric in shown), ""])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [cell.rjust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  ".join([row[0].ljust(widths[0]), *cells[1:]]))
    return "\n".join(lines)


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"


def _mean(results: Mapping[str, Mapping[str, Any]], metric: str) -> float | None:
    values = [metrics[metric] for metrics in results.values() if metrics[metric] is not None]
    return sum(values) / len(values) if values else None


def _shaded(image: np.ndarray, mask: np.ndarray, colour: tuple[float, ...]) -> np.ndarray:
    """Grey image with `mask` tinted in a colour; in [0, 1]."""
    shown = np.repeat(image.mean(-1, keepdims=True) / 255, 3, -1)
    shown[mask] = 0.4 * shown[mask] + 0.6 * np.array(colour)
    return shown


def _heat(values: np.ndarray) -> np.ndarray:
    """Heat-map colours of values in [0, 1], as RGB in [0, 1]."""
    from matplotlib import colormaps

    return np.asarray(colormaps["inferno"](values)[..., :3])


def overlay(
    image: Image.Image, anomaly_map: np.ndarray, threshold: float | None, score: float
) -> Image.Image:
    """Draws an image in grey under its anomaly map `[h, w]`, which is resized to it.

    Regions of an anomalous image above the threshold are outlined in red. The colour scale, common
    to all images, runs from half to twice the threshold; without one, to twice the image's score.
    Memory: 5 bytes a pixel, and a few strips.
    """
    limit = max(score if threshold is None else threshold, 1e-9)
    outlined = threshold is not None and score > threshold
    shades = np.linspace(0, 1, 256)
    weights = 0.8 * np.sqrt(shades)[:, None]
    greys, heats = 1 - weights, 255 * weights * _heat(shades)
    grey = image if image.mode == "L" else image.convert("L")
    drawn = Image.new("RGB", image.size)
    for first, rows, inner in strips(anomaly_map, image.size):
        scaled = (np.clip(rows / limit, 0.5, 2) - 0.5) / 1.5
        index = (255 * scaled[inner]).round().astype(np.uint8)
        box = (0, first, image.width, first + len(index))
        pixels = greys[index] * np.asarray(grey.crop(box))[..., None] + heats[index]
        if outlined:
            pixels[_outline(rows > limit)[inner]] = (255, 0, 0)
        drawn.paste(Image.fromarray(pixels.round().astype(np.uint8)), box)
    return drawn


def mask(anomaly_map: np.ndarray, size: tuple[int, int], threshold: float) -> Image.Image:
    """Draws 255 where an anomaly map `[h, w]`, resized to `size`, is above a threshold, else 0."""
    drawn = Image.new("L", size)
    for first, rows, inner in strips(anomaly_map, size):
        over = 255 * (rows[inner] > threshold).astype(np.uint8)
        drawn.paste(Image.fromarray(over), (0, first))
    return drawn


def strips(
    anomaly_map: np.ndarray, size: tuple[int, int]
) -> Iterator[tuple[int, np.ndarray, slice]]:
    """Rows of an anomaly map `[h, w]` as `images.map_at` resizes it to width and height `size`.

    Yields the number of a strip's first row, its rows with some more above and below, and the
    slice of those without.
    """
    (width, height), small = size, Image.fromarray(anomaly_map)
    scale = len(anomaly_map) / height
    step, margin = max(1, STRIP_PIXELS // width), math.ceil(2 / min(scale, 1)) + 1
    for first in range(0, height, step):
        last = min(first + step, height)
        above, below = max(first - margin, 0), min(last + margin, height)
        box = (0, above * scale, anomaly_map.shape[1], below * scale)
        rows = small.resize((width, below - above), Image.Resampling.BILINEAR, box)
        yield first, np.asarray(rows), slice(first - above, last - above)


def _outline(over: np.ndarray) -> np.ndarray:
    """Pixels of regions `[H, W]` that touch another pixel or the border."""
    inner = over.copy()
    inner[1:-1, 1:-1] &= over[:-2, 1:-1] & over[2:, 1:-1] & over[1:-1, :-2] & over[1:-1, 2:]
    inner[[0, -1]] = inner[:, [0, -1]] = False
    return over & ~inner


def strip(panel: Panel, threshold: float | None) -> bytes:
    """Draws a PNG like a column of figure 6: image, ground truth (red), map, segmentation (green).

    Ground truth and segmentation are omitted without mask or threshold. The map's colour scale
    spans its own scores.
    """
    low, high = float(panel.anomaly_map.min()), float(panel.anomaly_map.max())
    heat = _heat((panel.anomaly_map - low) / max(high - low, 1e-9))
    tiles = [panel.image / 255, heat]
    if panel.mask is not None:
        tiles.insert(1, _shaded(panel.image, panel.mask, (1, 0, 0)))
    if threshold is not None:
        tiles.append(_shaded(panel.image, panel.anomaly_map > threshold, (0, 0.9, 0.2)))
    pixels = (255 * np.concatenate(tiles, 1)).round().astype(np.uint8)
    return encode(pixels, "png", optimize=True)


def heatmaps(panels: Sequence[Panel], category: str, most: int) -> bytes:
    """Draws a PNG, a column per panel: image, ground truth (if any), anomaly map, overlay.

    All panels share one colour scale, from the median of the least anomalous panels (those after
    the first `most`) to the highest score.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    vmin = float(np.median([panel.anomaly_map for panel in panels[most:] or panels]))
    vmax = max(float(panel.anomaly_map.max()) for panel in panels)
    title = f"{category}: most anomalous test images, then the least"
    names = ["image", "ground truth", "anomaly map", "overlay"]
    if all(panel.mask is None for panel in panels):
        names.remove("ground truth")
    size = 1.75 * len(panels) + 0.7, 1.75 * len(names) + 0.8
    figure = Figure(figsize=size, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(len(names), len(panels), squeeze=False)
    scale = {"cmap": "inferno", "vmin": vmin, "vmax": vmax}
    for column, panel in zip(axes.T, panels, strict=True):
        column[0].set_title(panel.title, fontsize=8)
        column[0].imshow(panel.image)
        if "ground truth" in names:
            mask = np.zeros(panel.image.shape[:2], bool) if panel.mask is None else panel.mask
            column[1].imshow(_shaded(panel.image, mask, (1, 0, 0)))
        heat = column[-2].imshow(panel.anomaly_map, **scale)
        column[-1].imshow(panel.image.mean(-1), cmap="gray", vmin=0, vmax=255)
        column[-1].imshow(panel.anomaly_map, alpha=0.55, **scale)
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
    for axis, name in zip(axes[:, 0], names, strict=True):
        axis.set_ylabel(name, fontsize=9)
    figure.colorbar(heat, ax=axes, shrink=0.5, aspect=30, label="anomaly score")
    figure.suptitle(title, fontsize=11)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    return buffer.getvalue()
