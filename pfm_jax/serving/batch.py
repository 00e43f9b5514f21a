"""Batch prediction: scores any number of images into a CSV table, one row per image.

    OUTPUT/scores.csv             a row for each image; see `table.Row`
    OUTPUT/defects.json           the defects of all images, in COCO's layout
    OUTPUT/maps/NAME.tiff         the anomaly map, float32, at the image's own size
    OUTPUT/masks/NAME.png         255 where the map of an anomalous image is above the threshold
    OUTPUT/overlays/NAME.png      the map over the image
    OUTPUT/predict.json           detector and threshold of the scores

The rows of a batch are appended after its pictures. Running the same command again resumes: an
incomplete row of a killed run is truncated. A file that has a row is scored again if its size or
time has changed or if it could not be read; a file is its path with all links resolved. Rows of
files that are gone stay.
"""

from __future__ import annotations

import functools
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from pfm_jax.datasets import decoding
from pfm_jax.datasets import images as image_files
from pfm_jax.datasets.entries import read
from pfm_jax.datasets.inputs import find
from pfm_jax.datasets.walk import PREDICTED
from pfm_jax.inference import calibration, defects
from pfm_jax.inference.defects import Defect
from pfm_jax.inference.scorer import Scorer
from pfm_jax.serving import pictures, table
from pfm_jax.serving.pictures import TABLE_ONLY, Drawing, Options
from pfm_jax.serving.table import Row
from pfm_jax.system import devices, files
from pfm_jax.system.files import shown
from pfm_jax.types import InputError

KINDS = ("normal", "anomalous", "undecided", "unreadable")
"""Kinds of rows; an image is undecided without a threshold."""


class File(NamedTuple):
    """An image file.

    Attributes:
        path: as it was found.
        name: the path with links resolved, as text.
        state: size in bytes and time of its last change in ns, as text; empty if there is none.
    """

    path: Path
    name: str
    state: tuple[str, str]


class Opened(NamedTuple):
    """Decoded image file: pixels, uint8 `[size, size, 3]`, original width and height in pixels.

    An unreadable file has no pixels but an error.
    """

    file: File
    pixels: np.ndarray | None
    size: tuple[int, int] = (0, 0)
    error: str = ""
    warnings: str = ""


def predict(
    scorer: Scorer,
    images: str,
    output: Path,
    threshold: float | None,
    options: Options = TABLE_ONLY,
) -> tuple[Counter[str], int]:
    """Scores the images of a folder, a glob or a file that have no valid row in `output` yet.

    Returns:
        Row counts by one of `KINDS`, and the number of new rows.

    Raises:
        InputError: no image, an `output` that is in use or holds other scores, or a full disk;
            complete rows are kept.
    """
    root, paths = find(images, output)
    drawing = Drawing(output, options, pictures.names(root, paths), threshold, scorer.value_range)
    about: dict[str, object] = {"detector": scorer.fingerprint(), "threshold": threshold}
    if any(options):
        about["folder of pictures"] = os.path.realpath(root)
    found = {file.name: file for file in map(_file, paths)}
    with files.locked(output):
        _check_same(output, about)
        stands = functools.partial(_stands, found, drawing)
        with table.opened(output / "scores.csv", stands) as (append, kept):
            done = {row.path for row in kept}
            todo = [file for name, file in found.items() if name not in done]
            bar = tqdm(total=len(found), initial=len(found) - len(todo), unit="image", disable=None)
            with bar:
                for scores, maps, opened in scorer.stream(_batches(todo, scorer)):
                    p_values = calibration.p_values(scores, scorer.normal_scores)
                    judged = zip(scores, p_values, maps, strict=True)
                    rows = list(_rows(judged, opened, drawing))
                    append(rows)
                    kept += rows
                    bar.update(len(rows))
        files.write(output / "defects.json", _defects_of(kept))
    return Counter(map(_kind, kept)), len(todo)


def normal_scores(scorer: Scorer, images: str) -> np.ndarray:
    """Scores `[n]` of normal images. Raises InputError if one can't be read."""
    scored = []
    for scores, _, opened in scorer.stream(_batches([*map(_file, find(images)[1])], scorer)):
        if errors := [one.error for one in opened if one.pixels is None]:
            raise InputError(errors[0])
        scored.append(scores)
    return np.concatenate(scored)


def _file(path: Path) -> File:
    try:
        stat = path.stat()
    except OSError:  # a link that leads nowhere
        return File(path, shown(path.absolute()), ("", ""))
    name = shown(Path(os.path.realpath(path)))
    return File(path, name, (str(stat.st_size), str(stat.st_mtime_ns)))


def _batches(found: Sequence[File], scorer: Scorer) -> Iterator[tuple[np.ndarray, list[Opened]]]:
    """Batches decoded ahead: pixels of the readable files, and an `Opened` for every file."""
    size = scorer.size

    def one(file: File) -> Opened:
        try:
            content = read(file.path)
            with decoding.turn(content):
                image, notes, _ = decoding.decode(content, shown(file.path), scorer.value_range)
                pixels = image_files.resized(image, size)
        except InputError as error:
            return Opened(file, None, error=str(error))
        return Opened(file, pixels, image.size, warnings="; ".join(map(str, notes)))

    for opened in image_files.ahead(one, found, devices.batch_size()):
        pixels = [image.pixels for image in opened if image.pixels is not None]
        yield np.array(pixels, np.uint8).reshape(-1, size, size, 3), opened


def _rows(
    found: Iterator[tuple[np.float32, np.float64, np.ndarray]],
    opened: Sequence[Opened],
    drawing: Drawing,
) -> Iterator[Row]:
    """Yields the rows of a batch and writes its pictures; `found` has the readable images only."""
    limit = drawing.threshold
    threshold = "" if limit is None else f"{limit:.9g}"
    for one in opened:
        name, error = one.file.name, one.error
        if one.pixels is not None:
            score, p_value, small = next(found)
            error = "" if np.isfinite(score) else f"{name}: non-finite score"
            error = error or pictures.draw(one.file.path, one.size, float(score), small, drawing)
        if error:
            yield Row(name, "", "", threshold, "", error, "", "", "", "", *one.file.state)
            continue
        p_text = "" if np.isnan(p_value) else f"{p_value:.6g}"
        decision, regions = "", ""
        if limit is not None:
            decision = str(bool(score > limit))
            found_here = defects.find(small, one.size, limit) if score > limit else []
            regions = json.dumps([defect.rounded() for defect in found_here])
        numbers = f"{score:.9g}", p_text, threshold, decision
        width, height = map(str, one.size)
        about = one.warnings, width, height, regions
        yield Row(name, *numbers, "", *about, *one.file.state)


def _defects_of(rows: Sequence[Row]) -> bytes:
    """Content of `defects.json`."""
    images = [
        (row.path, (int(row.width), int(row.height)), [*map(Defect._make, json.loads(row.defects))])
        for row in rows
        if row.defects
    ]
    return (json.dumps(defects.coco(images), indent=1) + "\n").encode()


def _check_same(output: Path, about: dict[str, object]) -> None:
    """Writes `predict.json`. Raises InputError naming the difference if another exists."""
    path, before = output / PREDICTED, dict[str, object]()
    try:
        before = json.loads(path.read_text()) if path.is_file() else before
        differences = [key for key in about if before.get(key, about[key]) != about[key]]
    except (OSError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: can't be read ({error}); use another --output") from error
    if differences:
        raise InputError(
            f"{output} holds scores of another {' and '.join(differences)}; "
            "use another --output or delete the folder"
        )
    files.write(path, (json.dumps({**before, **about}, indent=2) + "\n").encode())


def _stands(found: Mapping[str, File], drawing: Drawing, row: Row) -> bool:
    """Whether a row is kept: of another file than those found, or of one as it is now."""
    if (file := found.get(row.path)) is None:
        return True
    same = (row.bytes, row.modified_ns) == file.state and not row.error
    return same and all(place.is_file() for place in drawing.places(file.path).values())


def _kind(row: Row) -> str:
    if row.error:
        return "unreadable"
    return {"True": "anomalous", "False": "normal", "": "undecided"}[row.is_anomalous]
