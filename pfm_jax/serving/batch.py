"""Batch prediction: scores any number of images into a CSV table, one row per image.

    OUTPUT/scores.csv             path, score, p_value, threshold, is_anomalous, error
    OUTPUT/maps/NAME.tiff         the anomaly map, float32, at the image's own size
    OUTPUT/overlays/NAME.png      the map over the image
    OUTPUT/predict.json           detector, threshold and images of the scores

The rows of a batch are appended after its pictures. Running the same command again resumes: an
incomplete row of a killed run is truncated, and images that have a row are skipped.
"""

from __future__ import annotations

import csv
import fcntl
import io
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tqdm import tqdm

from pfm_jax.datasets import images as image_files
from pfm_jax.datasets.folder import read
from pfm_jax.datasets.inputs import find
from pfm_jax.evaluation import figures
from pfm_jax.inference import calibration
from pfm_jax.inference.scorer import Scorer
from pfm_jax.system import devices, files
from pfm_jax.system.files import shown
from pfm_jax.types import InputError

COLUMNS = ("path", "score", "p_value", "threshold", "is_anomalous", "error")


class Options(NamedTuple):
    """Optional outputs besides the table."""

    maps: bool = False
    overlays: bool = False


TABLE_ONLY = Options()


class Opened(NamedTuple):
    """Decoded image file: pixels, uint8 `[size, size, 3]`, original width and height in pixels.

    An unreadable file has no pixels but an error.
    """

    path: Path
    pixels: np.ndarray | None
    size: tuple[int, int] = (0, 0)
    error: str = ""


class Target(NamedTuple):
    """Destination of scores and pictures; `names` are those of the pictures, without suffix."""

    folder: Path
    threshold: float
    options: Options
    names: dict[Path, Path]


def predict(
    scorer: Scorer, images: str, output: Path, threshold: float, options: Options = TABLE_ONLY
) -> tuple[Counter[str], int]:
    """Scores the images of a folder, a glob or a file that have no row in `output` yet.

    Returns:
        Row counts of "normal", "anomalous" and "unreadable" images, and the number of new rows.

    Raises:
        InputError: no image, or an `output` that is in use or holds other scores.
        OSError: a full disk; complete rows are kept.
    """
    root, paths = find(images)
    target = Target(output, threshold, options, _picture_names(root, paths))
    _check_same(output, {"detector": scorer.fingerprint, "threshold": threshold, "images": images})
    with _table(output / "scores.csv") as (descriptor, counts, done):
        todo = [path for path in paths if shown(path) not in done]
        bar = tqdm(total=len(paths), initial=len(paths) - len(todo), unit="image", disable=None)
        with bar:
            for scores, maps, opened in scorer.stream(_batches(todo, scorer.size)):
                p_values = calibration.p_values(scores, scorer.normal_scores)
                found = zip(scores, p_values, maps, strict=True)
                rows = list(_rows(found, opened, target))
                _append(descriptor, rows)
                counts.update(_kind(row) for row in rows)
                bar.update(len(rows))
    return counts, len(todo)


def normal_scores(scorer: Scorer, images: str) -> np.ndarray:
    """Scores `[n]` of normal images. Raises InputError if one can't be read."""
    found = []
    for scores, _, opened in scorer.stream(_batches(find(images)[1], scorer.size)):
        if errors := [one.error for one in opened if one.pixels is None]:
            raise InputError(errors[0])
        found.append(scores)
    return np.concatenate(found)


def _batches(paths: Sequence[Path], size: int) -> Iterator[tuple[np.ndarray, list[Opened]]]:
    """Batches decoded ahead: pixels of the readable files, and an `Opened` for every file."""

    def one(path: Path) -> Opened:
        try:
            image = image_files.open_rgb(read(path), shown(path))
            return Opened(path, image_files.resized(image, size), image.size)
        except InputError as error:
            return Opened(path, None, error=str(error))

    def batch(start: int) -> tuple[np.ndarray, list[Opened]]:
        opened = [one(path) for path in paths[start : start + most]]
        pixels = [image.pixels for image in opened if image.pixels is not None]
        return np.array(pixels, np.uint8).reshape(-1, size, size, 3), opened

    most = devices.batch_size()
    return image_files.ahead(batch, range(0, len(paths), most))


def _rows(
    found: Iterator[tuple[np.float32, np.float64, np.ndarray]],
    opened: Sequence[Opened],
    target: Target,
) -> Iterator[tuple[object, ...]]:
    """Yields the rows of a batch and writes its pictures; `found` has the readable images only."""
    threshold = f"{target.threshold:.9g}"
    for one in opened:
        path, error = shown(one.path), one.error
        if one.pixels is not None:
            score, p_value, small = next(found)
            error = "" if np.isfinite(score) else f"{path}: non-finite score"
        if error:
            yield (path, "", "", threshold, "", error)
            continue
        if target.options.maps or target.options.overlays:
            _draw(one, float(score), image_files.map_at(small, one.size), target)
        p_text = "" if np.isnan(p_value) else f"{p_value:.6g}"
        yield (path, f"{score:.9g}", p_text, threshold, bool(score > target.threshold), "")


def _draw(one: Opened, score: float, anomaly_map: np.ndarray, target: Target) -> None:
    name = target.names[one.path]
    if target.options.maps:
        picture = figures.encode(anomaly_map, "tiff")
        files.write(target.folder / "maps" / f"{name}.tiff", picture)
    if target.options.overlays:
        image = np.asarray(image_files.open_rgb(read(one.path), shown(one.path)))
        limit = target.threshold
        picture = figures.overlay(image, anomaly_map, limit, is_anomalous=score > limit)
        files.write(target.folder / "overlays" / f"{name}.png", picture)


def _picture_names(root: Path, paths: Sequence[Path]) -> dict[Path, Path]:
    """Output name of each image: its path relative to `root`, without suffix.

    MVTec's own evaluation expects these names. Images that differ only in suffix keep it.
    """
    stems = Counter(path.with_suffix("") for path in paths)
    unique = {path: path.with_suffix("") for path in paths if stems[path.with_suffix("")] == 1}
    return {path: unique.get(path, path).relative_to(root) for path in paths}


def _check_same(output: Path, about: dict[str, object]) -> None:
    """Writes `predict.json`. Raises InputError naming the difference if another exists."""
    path = output / "predict.json"
    if not path.is_file():
        files.write(path, (json.dumps(about, indent=2) + "\n").encode())
        return
    try:
        before = json.loads(path.read_text())
        differences = [k for k in about if before[k] != about[k]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: can't be read ({error}); use another --output") from error
    if differences:
        raise InputError(
            f"{output} holds scores of another {' and '.join(differences)}; "
            "use another --output or delete the folder"
        )


@contextmanager
def _table(path: Path) -> Iterator[tuple[int, Counter[str], set[str]]]:
    """Locks the table: descriptor to append to, row counts by decision, and paths with a row.

    Raises InputError if another process is writing it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        content = path.read_bytes()
        whole = _whole(content)
        os.truncate(descriptor, whole)
        rows = list(csv.reader(io.StringIO(content[:whole].decode(), newline="")))[1:]
        if not whole:
            _append(descriptor, [COLUMNS])
        yield descriptor, Counter(map(_kind, rows)), {row[0] for row in rows}
    except BlockingIOError as error:
        raise InputError(f"{path}: another process is writing it") from error
    finally:
        os.close(descriptor)


def _whole(content: bytes) -> int:
    """Byte length of the complete rows; a quoted line break does not end a row."""
    whole = position = quotes = 0
    for line in io.BytesIO(content):
        position += len(line)
        quotes += line.count(b'"')
        if line.endswith(b"\n") and quotes % 2 == 0:
            whole = position
    return whole


def _append(descriptor: int, rows: Sequence[Sequence[object]]) -> None:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    left = text.getvalue().encode()
    while left:
        left = left[os.write(descriptor, left) :]
    os.fsync(descriptor)


def _kind(row: Sequence[object]) -> str:
    if row[5]:
        return "unreadable"
    return "anomalous" if str(row[4]) == "True" else "normal"
