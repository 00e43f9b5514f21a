"""One image file decoded to 8-bit RGB, with notes on what is to be doubted about it.

Images are rotated to their EXIF orientation and converted to RGB: grey is repeated three times,
palettes are resolved, and transparency is dropped. Grey images of more than 8 bits, and
floating-point ones, are rescaled from their range to 8 bits: that of the recipe
(`data.value_range`), else that of the file's tags, else the nominal one (0 to 65535, 0 to 1).
"""

from __future__ import annotations

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from pfm_jax.types import InputError

FORMATS = ("PNG", "JPEG", "BMP", "TIFF", "WEBP")
"""Accepted formats; others have decoders that do more than decode (EPS runs a program)."""
LARGE = 16_000_000  # pixels; see `turn`
_TURNS = threading.Semaphore(4)  # of the process, whose memory it is
UNREADABLE = Exception  # Pillow raises anything on a corrupt file, even TypeError
MIN_SIDE = 8  # pixels

ORIENTATION = 0x0112  # EXIF tag
TURNED = range(2, 9)  # its values that mean anything but upright
SUBFILE, OLD_SUBFILE, BITS, MAX_VALUE, MAX_SIGNED_VALUE = 254, 255, 258, 281, 341  # TIFF tags
END_OF_JPEG, JPEG_SCAN = b"\xff\xd9", b"\xff\xda"  # markers; neither is in a scan's data
FULL_SCALES = {2**bits - 1 for bits in range(9, 16)}
LOW_16_BIT = 2**14  # a 16-bit image whose values are all below is likely to hold fewer bits
LOW_COLOUR = 2**4  # likewise, of the high bytes of 16-bit colour

NO_END = "ends without the end marker of JPEG, but all pixels are there"
LOW_VALUES = (
    "16-bit values of {} at most; if the camera gives 10 or 12 bits, set "
    "config.data.value_range=1023 or 4095"
)


class Note(NamedTuple):
    """A doubt about a file, without its name; `{}` in the text stands for the value."""

    text: str
    value: int = 0

    def __str__(self) -> str:
        return self.text.format(self.value)


class Decoded(NamedTuple):
    """8-bit RGB image at its own size, notes on its file, and whether EXIF turned it."""

    image: Image.Image
    notes: tuple[Note, ...] = ()
    is_turned: bool = False


def allow_megapixels(most: float) -> None:
    """Sets the most pixels of an image, in millions, in this process (Pillow's limit: 179)."""
    Image.MAX_IMAGE_PIXELS = int(most * 1e6 / 2)  # Pillow refuses twice as many, and warns before
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


def turn(encoded: bytes) -> contextlib.AbstractContextManager[object]:
    """Waits for its turn with a `LARGE` image, so that few are in memory at once."""
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            large = image.width * image.height > LARGE
    except UNREADABLE:
        large = False
    return _TURNS if large else contextlib.nullcontext()


def decode(encoded: bytes, name: str, value_range: float = 0.0) -> Decoded:
    """Decodes a file.

    Args:
        encoded: the content of the file.
        name: what errors call it.
        value_range: value of white in grey images of more than 8 bits and in floating-point ones;
            0 for that of the file's tags, or the nominal one.

    Raises:
        InputError: a format not among `FORMATS`, a damaged file, several images in one file, too
            few pixels or more than `allow_megapixels`, or values that are not finite or
            out of range; includes `name`.
    """
    notes: list[Note] = []
    if (whole := _with_end(encoded, name)) != encoded:
        encoded = whole
        notes.append(Note(NO_END))
    with opened(io.BytesIO(encoded), name) as file:
        _check_colour(file, name, value_range)
        bits, image = _tagged_range(file), file
        is_turned = file.getexif().get(ORIENTATION, 1) in TURNED
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith(("I", "F")):
            values = np.asarray(image, np.float64)
            image = Image.fromarray(_to_8_bits(values, image.mode, value_range or bits, name))
            low = file.mode.startswith("I") and not (value_range or bits)
            if low and 0 < values.max() < LOW_16_BIT:
                notes.append(Note(LOW_VALUES, int(values.max())))
        image.load()
        image = image.convert("RGBA") if image.mode == "P" else image
        rgb = image if image.mode == "RGB" else image.convert("RGB")  # which would copy it
    return Decoded(rgb, tuple(notes), is_turned)


def _to_8_bits(values: np.ndarray, mode: str, value_range: float, name: str) -> np.ndarray:
    """Rescales values of 0 to the range (the nominal one if 0) to 8 bits. Raises InputError."""
    most = value_range or (1.0 if mode.startswith("F") else 65535.0)
    if not np.isfinite(values).all():
        raise InputError(f"{name}: has pixels that are not finite numbers (NaN or infinite)")
    if values.min() < 0 or values.max() > most:
        raise InputError(
            f"{name}: has values from {values.min():g} to {values.max():g}, not from 0 to "
            f"{most:g}; set config.data.value_range to the value of white"
        )
    return (values * (255 / most)).round().astype(np.uint8)


def _check_colour(image: Image.Image, name: str, value_range: float) -> None:
    """Raises InputError: 16-bit colour of fewer bits, of which Pillow reads the high bytes only."""
    kept = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
    if not kept or image.mode.startswith("I"):  # of which all 16 bits are read
        return
    highest = np.asarray(image.getchannel(0) if image.mode == "LA" else image.convert("RGB")).max()
    if value_range or 0 < highest < LOW_COLOUR:
        raise InputError(f"{name}: is 16-bit colour of fewer bits; save it in 8 bits, or as grey")


def _tagged_range(image: Image.Image) -> float:
    """Value of white by a TIFF's tags, if they give one below the nominal one; else 0."""
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(BITS, (16,))[0]
    most = int(max(np.ravel(tags.get(MAX_VALUE, tags.get(MAX_SIGNED_VALUE, 0)))))
    if most in FULL_SCALES:  # else it is the highest value of this image alone
        return float(most)
    return float(2**bits - 1 if 8 < bits < 16 else 0)


def _with_end(encoded: bytes, name: str) -> bytes:
    """A JPEG with the end marker, if it lacks it. Raises InputError: pixels are missing too.

    A decoder that lacks pixels would make them of any bytes before the marker.
    """
    last_end = encoded.rfind(END_OF_JPEG)
    marked = last_end >= encoded.rfind(JPEG_SCAN)
    if marked or not encoded.startswith(b"\xff\xd8"):
        return encoded
    if last_end > encoded.find(JPEG_SCAN) and _loads(encoded):  # something else follows the image
        return encoded
    encoded = encoded.rstrip(b"\0")  # a file that was given its length before its content
    filler = bytes(np.random.default_rng(0).integers(1, 255, 4096, np.uint8))
    whole, other = (encoded.rstrip(b"\xff") + tail + END_OF_JPEG for tail in (b"", filler))
    with opened(io.BytesIO(whole), name) as left, opened(io.BytesIO(other), name) as right:
        if not np.array_equal(np.asarray(left), np.asarray(right)):
            raise InputError(f"{name}: not a readable image (it is cut off)")
    return whole


def _loads(encoded: bytes) -> bool:
    """Whether Pillow finds all of an image."""
    try:
        with Image.open(io.BytesIO(encoded), formats=FORMATS) as image:
            image.load()
    except UNREADABLE:
        return False
    return True


@contextlib.contextmanager
def opened(file: Path | io.BytesIO, name: str) -> Iterator[Image.Image]:
    """Image, checked and open for the block, whose errors become InputError."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            _check_shape(image, name)
            yield image
    except InputError:
        raise
    except Image.DecompressionBombError as error:
        raise InputError(
            f"{name}: has more pixels than are allowed (predict --max_megapixels)"
        ) from error
    except UNREADABLE as error:
        raise InputError(f"{name}: not a readable image ({reason(error)})") from error


def reason(error: Exception) -> str:
    """Short text of an error of Pillow."""
    if isinstance(error, UnidentifiedImageError):
        return f"not one of {', '.join(FORMATS)}"
    return str(error) or type(error).__name__


def _check_shape(image: Image.Image, name: str) -> None:
    """Checks the size, and the number of images. Raises InputError. (MPO: a JPEG with previews.)"""
    frames = getattr(image, "n_frames", 1)
    if frames > 1 and image.format == "TIFF":
        frames = _seek_full(image)
    if frames > 1 and image.format != "MPO":
        raise InputError(f"{name}: contains {frames} images; expected one image per file")
    width, height = image.size
    if min(width, height) < MIN_SIDE:
        raise InputError(f"{name}: is {width}x{height} pixels; the minimum is {MIN_SIDE} per side")


def _seek_full(image: Image.Image) -> int:
    """Goes to the first full page of a TIFF, past thumbnails; returns the number of full pages.

    A thumbnail is a page tagged as reduced, or one of the first full page's shape but smaller.
    """
    sizes: dict[int, tuple[int, int]] = {}
    for page in range(image.n_frames):  # type: ignore[attr-defined]
        image.seek(page)
        tags = image.tag_v2  # type: ignore[attr-defined]
        if not (tags.get(SUBFILE, 0) & 1 or tags.get(OLD_SUBFILE) == 2):
            sizes[page] = image.size
    if not sizes:
        return image.n_frames  # type: ignore[attr-defined,no-any-return]
    first = max(sizes, key=lambda page: (sizes[page][0] * sizes[page][1], -page))
    image.seek(first)
    width, height = sizes[first]
    return sum(
        (w, h) == (width, height) or abs(w * height - h * width) > max(width, height)
        for w, h in sizes.values()
    )


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Encoded file of an image."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
