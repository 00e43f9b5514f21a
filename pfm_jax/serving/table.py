"""The table of scores: a CSV file whose complete rows survive a kill."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from pfm_jax.system import files
from pfm_jax.types import InputError


class Row(NamedTuple):
    """One image, all as text; the fields are the columns.

    Attributes:
        path: of its file, with all links resolved.
        error: why it has no score, if so.
        warnings: what is to be doubted about the file.
        width, height: of the image, in pixels.
        defects: of an anomalous image, as JSON: `[area, box, centroid, score]` of each.
        bytes, modified_ns: size of the file and time of its last change, when it was scored.
    """

    path: str
    score: str
    p_value: str
    threshold: str
    is_anomalous: str
    error: str
    warnings: str
    width: str
    height: str
    defects: str
    bytes: str
    modified_ns: str


@contextmanager
def opened(
    path: Path, stands: Callable[[Row], bool]
) -> Iterator[tuple[Callable[[Sequence[Row]], None], list[Row]]]:
    """A function that appends rows durably, and the rows that are there and stand.

    Deletes the other rows, and an incomplete last one. Nothing else may write the table meanwhile.
    Raises InputError: a table with other columns, or a full disk; complete rows are kept.
    """
    content = path.read_bytes() if path.is_file() else b""
    try:
        csv.field_size_limit(2**31 - 1)  # an image may have very many defects
        rows = list(csv.reader(io.StringIO(content[: _whole(content)].decode(), newline="")))
    except (csv.Error, UnicodeDecodeError) as error:
        raise InputError(f"{path}: can't be read ({error}); use another --output") from error
    if rows and tuple(rows[0]) != Row._fields:
        raise InputError(f"{path}: has other columns than are written today; use another --output")
    if torn := next((n for n, row in enumerate(rows, 1) if len(row) != len(Row._fields)), None):
        raise InputError(f"{path}: row {torn} was changed by another program; use another --output")
    kept = [row for row in map(Row._make, rows[1:]) if stands(row)]
    if (now := _text([Row._fields, *kept])) != content:
        files.write(path, now)
    yield lambda new: files.append(path, _text(new)), kept


def _whole(content: bytes) -> int:
    """Byte length of the complete rows; a quoted line break does not end a row."""
    whole = position = quotes = 0
    for line in io.BytesIO(content):
        position += len(line)
        quotes += line.count(b'"')
        if line.endswith(b"\n") and quotes % 2 == 0:
            whole = position
    return whole


def _text(rows: Sequence[Sequence[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()
