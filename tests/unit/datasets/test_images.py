"""Decoding: the resize against Pillow's goldens, every kind of image, what can't be read."""

from __future__ import annotations

import io
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pfm_jax.datasets import decoding, images
from pfm_jax.types import Example, InputError
from tests.parity.goldens.seeded import seeded_bytes, seeded_mask
from tests.synthetic import png, texture

GOLDEN = np.load(Path(__file__).parents[2] / "parity" / "goldens" / "resize.npz")
SIZES = sorted({key.split("/")[1] for key in GOLDEN.files if "/" in key})


def example(image: bytes, mask: bytes | None = None) -> Example:
    return Example("test/hole/000.png", image, mask, int(mask is not None), "hole")


def encoded(image: Image.Image, kind: str = "png", **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("size", SIZES)
def test_resize_is_pillows(size: str) -> None:
    height, width = map(int, size.split("x"))
    image, mask = seeded_bytes((height, width, 3)), seeded_mask((height, width))
    found = example(png(image), png(mask))
    ours = images.decode_image(found, 256)
    assert ours.shape == (256, 256, 3)
    np.testing.assert_array_equal(
        ours.ravel()[GOLDEN[f"image/{size}/indices"]], GOLDEN[f"image/{size}/values"]
    )
    np.testing.assert_array_equal(
        images.decode_mask(found, 256).ravel()[GOLDEN[f"mask/{size}/indices"]],
        GOLDEN[f"mask/{size}/values"] > 0,
    )


RAMP = np.linspace(0, 255, 64 * 48).reshape(48, 64).round()
RGB = np.repeat(RAMP[..., None].astype(np.uint8), 3, -1)


@pytest.mark.parametrize(
    "image",
    [
        Image.fromarray(RAMP.astype(np.uint8)),
        Image.fromarray((RAMP * 257).astype(np.uint16)),
        Image.fromarray(RGB),
        Image.fromarray(np.dstack([RGB, RGB[..., :1] // 2])),
        Image.fromarray(RAMP.astype(np.uint8)).convert("P"),
        Image.fromarray(RAMP.astype(np.uint8)).convert("LA"),
    ],
    ids=["grey", "16_bit", "rgb", "rgba", "palette", "grey_alpha"],
)
def test_every_mode_becomes_the_same_rgb(image: Image.Image) -> None:
    found = np.asarray(decoding.decode(encoded(image), "ramp").image)
    np.testing.assert_allclose(found.astype(int), RGB.astype(int), atol=1)


def test_floating_point_image_is_scaled_from_its_unit_range() -> None:
    data = encoded(Image.fromarray((RAMP / 255).astype(np.float32)), "tiff")
    np.testing.assert_allclose(np.asarray(decoding.decode(data, "ramp").image), RGB, atol=1)


def test_exif_orientation_is_followed() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter clockwise
    turned = np.asarray(decoding.decode(encoded(Image.fromarray(RGB), exif=exif), "ramp").image)
    np.testing.assert_array_equal(turned, np.rot90(RGB, -1))


@pytest.mark.parametrize("content", [b"", b"not an image", png(texture(0))[:500]])
def test_unreadable_image_is_named(content: bytes) -> None:
    with pytest.raises(InputError, match=r"test/hole/000\.png: not a readable image"):
        images.decode_image(example(content), 64)


@pytest.mark.parametrize("mode", ["L", "1", "P", "LA", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize("value", [1, 255])
def test_any_value_but_zero_marks_a_defect(value: int, mode: str) -> None:
    mask = np.zeros((48, 64), np.uint16 if mode == "I;16" else np.uint8)
    mask[:24] = 255 if mode == "1" else value
    picture = Image.fromarray(mask) if mode == "I;16" else Image.fromarray(mask).convert(mode)
    found = images.decode_mask(example(png(RGB), encoded(picture)), 16)
    np.testing.assert_array_equal(found, np.arange(16)[:, None].repeat(16, 1) < 8)


def test_batches_come_in_order_and_padded() -> None:
    examples = [example(png(texture(seed, 32))) for seed in range(11)]
    found = list(images.batches(examples, 32, 4))
    assert [count for _, count in found] == [4, 4, 3]
    assert {batch.shape for batch, _ in found} == {(4, 32, 32, 3)}
    real = np.concatenate([batch[:count] for batch, count in found])
    np.testing.assert_array_equal(real, np.stack([texture(seed, 32) for seed in range(11)]))


def test_images_of_one_batch_are_decoded_at_the_same_time() -> None:
    together, started = threading.Barrier(4, timeout=60), []

    def work(item: int) -> int:
        started.append(item)
        if item < 4:
            together.wait()  # breaks unless four threads come here
        return -item

    found = images.ahead(work, range(50), 4)
    assert next(found) == [0, -1, -2, -3]
    most = 4 * images.PREFETCH_COUNT  # besides the batch that was taken
    assert len(started) <= 4 + most
    assert [-item for batch in found for item in batch] == list(range(4, 50))
