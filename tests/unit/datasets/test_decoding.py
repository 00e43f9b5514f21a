"""Odd files: the right picture, a note, or one clear error; never a white, black or coarse one."""

from __future__ import annotations

import io
import warnings

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from pfm_jax.datasets.decoding import allow_megapixels, decode
from pfm_jax.datasets.masks import decode_mask
from pfm_jax.types import InputError
from tests.synthetic import png, texture

GREY = texture(3)[..., 0]


def saved(array: np.ndarray, kind: str = "tiff", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **options)
    return buffer.getvalue()


def decoded(content: bytes, value_range: float = 0.0) -> np.ndarray:
    return np.asarray(decode(content, "a.png", value_range).image).astype(int)


def notes(content: bytes, value_range: float = 0.0) -> list[str]:
    return [*map(str, decode(content, "a.png", value_range).notes)]


def tags(**values: int) -> TiffImagePlugin.ImageFileDirectory_v2:
    found = TiffImagePlugin.ImageFileDirectory_v2()
    for name, value in values.items():
        found[{"subfile": 254, "highest": 281}[name]] = value
    return found


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.float32(GREY), "values from .* to .*, not from 0 to 1; set config.data.value_range"),
        (np.float32(GREY / 255) - 1, "values from -0"),
        (np.where(GREY > 100, np.nan, GREY / 255).astype(np.float32), "not finite numbers"),
        (np.where(GREY > 100, np.inf, GREY / 255).astype(np.float32), "not finite numbers"),
        (GREY.astype(np.int32) * 1000, "not from 0 to 65535"),
    ],
    ids=["255", "negative", "nan", "infinite", "32_bit"],
)
def test_values_out_of_range_are_refused(values: np.ndarray, message: str) -> None:
    with pytest.raises(InputError, match=rf"^a\.png: .*{message}"):
        decode(saved(values), "a.png")


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("kind", ["tiff", "png"])
def test_fewer_bits_in_16(bits: int, kind: str) -> None:
    """Scaled by the recipe's range or the file's tag; else the note names the highest value."""
    most = 2**bits - 1
    values = np.round(GREY / 255 * most).astype(np.uint16)
    content, expected = saved(values, kind), GREY[..., None].repeat(3, -1)
    np.testing.assert_allclose(decoded(content, most), expected, atol=1)
    assert notes(content, most) == []
    (note,) = notes(content)
    assert note.startswith(f"16-bit values of {values.max()} at most;")
    if kind == "tiff":
        tagged = saved(values, tiffinfo=tags(highest=most))
        np.testing.assert_allclose(decoded(tagged), expected, atol=1)
        assert notes(tagged) == []


def test_16_bits_in_use_say_nothing() -> None:
    content = saved(GREY.astype(np.uint16) * 257, "png")
    assert notes(content) == []
    np.testing.assert_allclose(decoded(content), GREY[..., None].repeat(3, -1), atol=1)


def colour_16(values: np.ndarray) -> bytes:
    """An RGB TIFF of 16 bits, which Pillow reads and can't write."""
    height, width, _ = values.shape
    entries = [
        *[(256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, 122), (259, 3, 1, 1)],
        *[(262, 3, 1, 2), (273, 4, 1, 128), (277, 3, 1, 3), (278, 4, 1, height)],
        (279, 4, 1, values.nbytes),
    ]
    head = b"II*\0\x08\0\0\0" + len(entries).to_bytes(2, "little")
    for tag, kind, count, value in entries:
        head += b"".join(n.to_bytes(w, "little") for n, w in ((tag, 2), (kind, 2), (count, 4)))
        head += value.to_bytes(4, "little")
    head += bytes(4)
    return head + b"\x10\0" * 3 + values.astype("<u2").tobytes()


def test_16_bit_colour_of_fewer_bits_is_refused() -> None:
    values = texture(3).astype(np.uint16)
    np.testing.assert_allclose(decoded(colour_16(values * 257)), values, atol=1)
    with pytest.raises(InputError, match="16-bit colour of fewer bits"):
        decode(colour_16(values * 4), "a.png")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"optimize": True}])
def test_a_jpeg_without_its_end_is_read_only_if_no_pixel_is_missing(options: dict) -> None:
    whole = saved(texture(3), "jpeg", **options)
    for content in (whole, whole + bytes(40)):
        assert notes(content) == []
    for content in (whole[:-2], whole[:-1], whole[:-2] + bytes(9)):
        np.testing.assert_array_equal(decoded(content), decoded(whole))
        assert notes(content) == ["ends without the end marker of JPEG, but all pixels are there"]
    for left in (*range(3, 40, 5), 400, 900):
        for content in (whole[:-left], whole[:-left] + bytes(left), whole[:-left] + bytes(9999)):
            with pytest.raises(InputError, match=r"^a\.png: not a readable image"):
                decode(content, "a.png")
    trailer = whole + b"\xff\xda" + bytes(range(200))  # a film that a phone appends
    assert notes(trailer) == []


def pages(*pictures: np.ndarray, **about: object) -> bytes:
    first, *others = map(Image.fromarray, pictures)
    buffer = io.BytesIO()
    first.save(buffer, "tiff", save_all=True, append_images=others, **about)
    return buffer.getvalue()


def test_thumbnails_in_a_tiff_are_passed_over() -> None:
    full = texture(3)
    small = np.asarray(Image.fromarray(full).resize((16, 16)))
    smaller = np.asarray(Image.fromarray(full).resize((9, 9)))
    for content in (pages(full, small), pages(small, full), pages(smaller, full, small)):
        np.testing.assert_array_equal(decoded(content), full)
    with pytest.raises(InputError, match="contains 2 images; expected one"):
        decode(pages(full, small, full), "a.png")
    with pytest.raises(InputError, match="contains 2 images; expected one"):
        decode(pages(full, full[:20]), "a.png")


def test_a_tagged_thumbnail_of_another_shape_is_passed_over() -> None:
    buffer = io.BytesIO()
    with TiffImagePlugin.AppendingTiffWriter(buffer, new=True) as writer:
        for picture, info in ((texture(4)[:20], tags(subfile=1)), (texture(3), tags())):
            Image.fromarray(picture).save(writer, "tiff", tiffinfo=info)
            writer.newFrame()
    np.testing.assert_array_equal(decoded(buffer.getvalue()), texture(3))


def test_the_most_pixels_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # put back at the end
    content = png(texture(0, 100))
    with warnings.catch_warnings():
        allow_megapixels(0.0099)
        with pytest.raises(InputError, match=r"^a\.png: has more pixels than are allowed"):
            decode(content, "a.png")
        allow_megapixels(0.01)
        assert decode(content, "a.png").image.size == (100, 100)


def test_masks_that_are_not_of_two_values_are_noted() -> None:
    mask = np.zeros((40, 40), np.uint8)
    mask[9:25, 9:26] = 255
    found = decode_mask(png(mask), "m.png")
    assert not found.notes
    np.testing.assert_array_equal(found.marked, mask > 0)
    lossy = decode_mask(saved(mask, "jpeg", quality=30), "m.jpg")
    assert "it is compressed" in str(lossy.notes[0])
    np.testing.assert_array_equal(lossy.marked, mask > 0)
    mask[10:14, 10:14] = 7
    several = decode_mask(png(mask), "m.png")
    assert str(several.notes[0]).startswith("has 3 values where a mask has two; all but 0")
    np.testing.assert_array_equal(several.marked, mask > 0)
