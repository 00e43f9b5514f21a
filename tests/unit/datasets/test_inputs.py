"""Images from anywhere: files, arrays and PIL images, and one clear error for anything else."""

from __future__ import annotations

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from pfm_jax.datasets import decoding, inputs
from pfm_jax.types import InputError
from tests.synthetic import png, texture


def decoded(given: object) -> list[np.ndarray]:
    found = inputs.examples(given)  # type: ignore[arg-type]
    return [np.asarray(decoding.decode(example.image, example.path).image) for example in found]


def test_images_from_anywhere(tmp_path: Path) -> None:
    """Arrays of NumPy and JAX, PIL images, folders, files, globs, and all of them at once."""
    pictures = [texture(seed, 20 + seed) for seed in range(4)]
    for index, picture in enumerate(pictures):
        place = tmp_path / f"{'a' if index < 2 else 'b'}" / f"{index}.png"
        place.parent.mkdir(exist_ok=True)
        place.write_bytes(png(picture))
    mixed = [
        tmp_path / "a",
        str(tmp_path / "b" / "[2].png"),
        Image.fromarray(pictures[3]),
        jnp.asarray(pictures[0]),
        pictures[1],
        tmp_path / "b" / "2.png",
    ]
    expected = [0, 1, 2, 3, 0, 1, 2]
    for given in (mixed, tuple(mixed), iter(mixed)):
        found = decoded(given)
        assert len(found) == len(expected)
        for picture, index in zip(found, expected, strict=True):
            np.testing.assert_array_equal(picture, pictures[index])
    names = [example.path for example in inputs.examples(mixed)]
    assert names[0] == (tmp_path / "a" / "0.png").as_posix()
    assert names[3:6] == ["images[3]", "images[4]", "images[5]"]
    for given in (pictures[0][None], jnp.asarray(pictures[0])[None], Image.fromarray(pictures[0])):
        (one,) = decoded(given)
        np.testing.assert_array_equal(one, pictures[0])


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "I;16", "F"])
def test_pil_images_of_every_mode_are_what_their_file_is(mode: str) -> None:
    if mode in ("I;16", "F"):
        grey = texture(0)[..., 0]
        values = grey.astype(np.uint16) * 257 if mode == "I;16" else grey / np.float32(255)
        image, expected = Image.fromarray(values), np.repeat(grey[..., None], 3, -1)
    else:
        image = Image.fromarray(texture(0)).convert(mode)
        expected = np.asarray(image.convert("RGBA").convert("RGB"))
    (found,) = decoded(image)
    np.testing.assert_allclose(found.astype(int), expected.astype(int), atol=1)


def test_a_pil_image_is_turned_as_its_file_is(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(texture(0)[:40]).save(tmp_path / "a.png", exif=exif)
    (by_path,) = decoded(tmp_path / "a.png")
    assert by_path.shape == (64, 40, 3)
    with Image.open(tmp_path / "a.png") as image:
        (opened,) = decoded(image)
    np.testing.assert_array_equal(opened, by_path)


def test_a_pil_image_loses_nothing_that_its_file_has(tmp_path: Path) -> None:
    """A lossy TIFF, which Pillow would compress again."""
    Image.fromarray(texture(0)).save(tmp_path / "a.tiff", compression="jpeg", quality=50)
    (by_path,) = decoded(tmp_path / "a.tiff")
    with Image.open(tmp_path / "a.tiff") as image:
        (opened,) = decoded(image)
    np.testing.assert_array_equal(opened, by_path)


def test_a_torn_pil_image_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(png(texture(0))[:3000])
    message = r"images\[0\]: not a readable image"
    with Image.open(tmp_path / "a.png") as torn, pytest.raises(InputError, match=message):
        decoded(torn)


@pytest.mark.parametrize(
    "given", [None, 3, b"a.png", {"a": 1}, [{"a": 1}], [None], [texture(0), 3]]
)
def test_anything_else_is_one_clear_error(given: object) -> None:
    with pytest.raises(
        InputError, match=r"^images(\[\d\])? of type \w+: must be a folder, file"
    ) as told:
        inputs.examples(given)  # type: ignore[arg-type]
    assert "\n" not in str(told.value)
