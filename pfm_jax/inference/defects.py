"""Defects as things: the connected regions of an anomaly map above a threshold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from scipy import ndimage

MOST_PIXELS = 4_000_000
"""Larger images' regions are found at a lower resolution, so that memory stays bounded."""


class Defect(NamedTuple):
    """One region, in pixels of the original image.

    Attributes:
        area: pixels above the threshold.
        box: left, top, width, height.
        centroid: x and y of the mean of its pixels' centres.
        score: the highest of the anomaly map in it.
    """

    area: float
    box: tuple[float, float, float, float]
    centroid: tuple[float, float]
    score: float

    def rounded(self) -> Defect:
        """The same to a hundredth of a pixel, and six digits of the score."""
        area, box, centroid, score = self
        corners = tuple(round(side, 2) for side in box), tuple(round(at, 2) for at in centroid)
        return Defect(round(area, 2), *corners, float(f"{score:.6g}"))  # type: ignore[arg-type]


def find(anomaly_map: np.ndarray, size: tuple[int, int], threshold: float) -> list[Defect]:
    """Regions above a threshold, the highest first; pixels that touch at a corner are connected.

    Args:
        anomaly_map: `[h, w]`, at the resolution of the network's input.
        size: width and height of the image, to which the map is resized (bilinearly).
        threshold: see `calibration.threshold`.
    """
    shrink = max(1.0, (size[0] * size[1] / MOST_PIXELS) ** 0.5)
    width, height = (max(1, round(side / shrink)) for side in size)
    bilinear = Image.Resampling.BILINEAR
    full = np.asarray(Image.fromarray(anomaly_map).resize((width, height), bilinear))
    labels, count = ndimage.label(full > threshold, np.ones((3, 3)))
    x, y = size[0] / width, size[1] / height  # of one pixel of `full`
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels, count), 1):
        inside = labels[rows, columns] == number
        down, right = (at.mean() + 0.5 for at in np.nonzero(inside))
        box = columns.start * x, rows.start * y, inside.shape[1] * x, inside.shape[0] * y
        centroid = (columns.start + right) * x, (rows.start + down) * y
        peak = float(full[rows, columns][inside].max())
        found.append(Defect(float(inside.sum() * x * y), box, centroid, peak))
    return sorted(found, key=lambda defect: -defect.score)


def coco(images: Sequence[tuple[str, tuple[int, int], Sequence[Defect]]]) -> dict[str, Any]:
    """The defects of images (name, width and height, defects) in COCO's layout.

    With two fields more, `score` and `centroid`. (https://cocodataset.org/#format-data)
    """
    listed: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for image, (name, (width, height), defects) in enumerate(images, 1):
        listed.append({"id": image, "file_name": name, "width": width, "height": height})
        for defect in defects:
            about = {"id": len(annotations) + 1, "image_id": image, "category_id": 1, "iscrowd": 0}
            values = defect._asdict()
            annotations.append({**about, "bbox": list(values.pop("box")), **values})
    categories = [{"id": 1, "name": "defect"}]
    return {"images": listed, "annotations": annotations, "categories": categories}
