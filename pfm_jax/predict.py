"""New images, as many as there are, to a table: one row each, whatever happens.

    OUTPUT/scores.csv             path, score, p_value, threshold, is_anomalous, error
    OUTPUT/maps/NAME.tiff         the anomaly map, float32, at the image's own size
    OUTPUT/overlays/NAME.png      the map over the image
    OUTPUT/predict.json           what the scores are of

Rows are appended a batch at a time, after the pictures of the batch; what a killed run left of a
row is cut off when the same command is given again, and what has a row is not looked at again.
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
from PIL import Image
from tqdm import tqdm

from pfm_jax import calibration, files, report
from pfm_jax import images as image_files
from pfm_jax.datasets.folder import read
from pfm_jax.datasets.loose import find
from pfm_jax.files import shown
from pfm_jax.scorer import Scorer
from pfm_jax.types import InputError

BATCH_SIZE = image_files.BATCH_SIZE
COLUMNS = ("path", "score", "p_value", "threshold", "is_anomalous", "error")


class Options(NamedTuple):
    """What is written besides the table."""

    maps: bool = False
    overlays: bool = False


TABLE_ONLY = Options()


class Opened(NamedTuple):
    """A file after decoding.

    Attributes:
        path: of the file.
        pixels: uint8 `[size, size, 3]`; None if it can't be read.
        size: width and height of the image itself.
        error: why it can't.
    """

    path: Path
    pixels: np.ndarray | None
    size: tuple[int, int] = (0, 0)
    error: str = ""


def predict(
    scorer: Scorer, images: str, output: Path, threshold: float, options: Options = TABLE_ONLY
) -> tuple[Counter[str], int]:
    """Scores every image of a folder, a glob or a file that has no row in `output` yet.

    Returns:
        How many rows there are of `"normal"`, `"anomalous"` and `"unreadable"` images, and how
        many of them are new.

    Raises:
        InputError: no image, an `output` with scores of another kind, or in use.
        OSError: a full disk. What has a row is safe.
    """
    root, paths = find(images)
    names = _picture_names(root, paths)
    _check_same(output, {"detector": scorer.fingerprint, "threshold": threshold, "images": images})
    with _table(output / "scores.csv") as (descriptor, counts, done):
        todo = [path for path in paths if shown(path) not in done]
        bar = tqdm(total=len(paths), initial=len(paths) - len(todo), unit="image", disable=None)
        with bar:
            for opened in _opened(todo, scorer.size):
                rows = list(_rows(scorer, opened, threshold, output, options, names))
                _append(descriptor, rows)
                counts.update(_kind(row) for row in rows)
                bar.update(len(rows))
    return counts, len(todo)


def normal_scores(scorer: Scorer, images: str) -> np.ndarray:
    """`[n]`, the scores of normal images. Raises InputError if one can't be read."""
    found = [np.zeros(0, np.float32)]
    for opened in _opened(find(images)[1], scorer.size):
        if errors := [one.error for one in opened if one.pixels is None]:
            raise InputError(errors[0])
        pixels = [one.pixels for one in opened if one.pixels is not None]
        found.append(scorer.score(np.stack(pixels))[0])
    return np.concatenate(found)


def _opened(paths: Sequence[Path], size: int) -> Iterator[list[Opened]]:
    """Batches of files, decoded ahead."""

    def one(path: Path) -> Opened:
        try:
            image = image_files.open_rgb(read(path), shown(path))
            return Opened(path, image_files.resized(image, size), image.size)
        except InputError as error:
            return Opened(path, None, error=str(error))

    starts = range(0, len(paths), BATCH_SIZE)
    yield from image_files.ahead(lambda at: [one(p) for p in paths[at : at + BATCH_SIZE]], starts)


def _rows(
    scorer: Scorer,
    opened: Sequence[Opened],
    threshold: float,
    output: Path,
    options: Options,
    names: dict[Path, Path],
) -> Iterator[tuple[object, ...]]:
    """The rows of a batch, in order; writes its pictures."""
    good = [one.pixels for one in opened if one.pixels is not None]
    scores, maps = scorer.score(np.stack(good)) if good else (np.zeros(0), np.zeros(0))
    p_values = calibration.p_values(scores, scorer.normal_scores)
    found = iter(zip(scores, p_values, maps, strict=True))
    for one in opened:
        if one.pixels is None:
            yield (shown(one.path), "", "", f"{threshold:.9g}", "", one.error)
            continue
        score, p_value, small = next(found)
        if not np.isfinite(score):
            error = f"{shown(one.path)}: its score is not finite"
            yield (shown(one.path), "", "", f"{threshold:.9g}", "", error)
            continue
        if options.maps or options.overlays:
            _draw(one, image_files.map_at(small, one.size), threshold, output, options, names)
        p_text = "" if np.isnan(p_value) else f"{p_value:.6g}"
        decision = score > threshold
        yield (shown(one.path), f"{score:.9g}", p_text, f"{threshold:.9g}", bool(decision), "")


def _draw(
    one: Opened,
    anomaly_map: np.ndarray,
    threshold: float,
    output: Path,
    options: Options,
    names: dict[Path, Path],
) -> None:
    if options.maps:
        buffer = io.BytesIO()
        Image.fromarray(anomaly_map).save(buffer, "tiff")
        files.write(output / "maps" / f"{names[one.path]}.tiff", buffer.getvalue())
    if options.overlays:
        image = np.asarray(image_files.open_rgb(read(one.path), shown(one.path)))
        picture = report.overlay(image, anomaly_map, threshold)
        files.write(output / "overlays" / f"{names[one.path]}.png", picture)


def _picture_names(root: Path, paths: Sequence[Path]) -> dict[Path, Path]:
    """Where an image's pictures go: its place below `root` without its suffix (as MVTec's own
    evaluation looks for them), with it where two images differ in that alone.
    """
    relative = {path: path.relative_to(root) for path in paths}
    stems = Counter(place.with_suffix("") for place in relative.values())
    return {
        path: place if stems[place.with_suffix("")] > 1 else place.with_suffix("")
        for path, place in relative.items()
    }


def _check_same(output: Path, about: dict[str, object]) -> None:
    """Leaves `predict.json`. Raises InputError if another one is there, with the difference."""
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
            f"{output} holds scores of another {' and '.join(differences)}; use another --output, "
            "or delete that folder"
        )


@contextmanager
def _table(path: Path) -> Iterator[tuple[int, Counter[str], set[str]]]:
    """The table, to be appended to, what it counts and the paths that it has rows of.

    Raises:
        InputError: another process writes it.
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
    """The length of the rows that are complete: a line end within quotes ends no row."""
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
