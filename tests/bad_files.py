"""Bad images, masks and folders: part of `tests.bad_inputs`."""

from __future__ import annotations

import io
import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pfm_jax import datasets
from tests.synthetic import make_category, png, texture

Case = Callable[[Path], object]


def encoded(kind: str, frames: int = 1, size: tuple[int, int] = (64, 64), **options: Any) -> bytes:
    pictures = [Image.fromarray(texture(i)).resize(size) for i in range(frames)]
    buffer = io.BytesIO()
    more = {"save_all": True, "append_images": pictures[1:]} if frames > 1 else {}
    pictures[0].save(buffer, kind, **more, **options)
    return buffer.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header says that it is large."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + check

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000)))


def image(content: bytes, name: str = "train/good/003.png") -> Case:
    """One file of a category has this content."""

    def case(place: Path) -> object:
        root = make_category(place / "data" / "grid")
        (root / name).write_bytes(content)
        return datasets.load("mvtec_ad", place / "data", "grid")

    return case


def category(harm: Callable[[Path], object], dataset: str = "mvtec_ad") -> Case:
    """Something is done to a category's folder."""

    def case(place: Path) -> object:
        harm(make_category(place / "data" / "grid"))
        return datasets.load(dataset, place / "data", "grid")

    return case


def no_images(root: Path) -> None:
    shutil.rmtree(root / "train" / "good")
    (root / "train" / "good").mkdir()


def mask_of_another_size(root: Path) -> None:
    (root / "ground_truth" / "hole" / "001_mask.png").write_bytes(png(np.ones((9, 9), np.uint8)))


def same_name_twice(root: Path) -> None:
    (root / "test" / "hole" / "000.bmp").write_bytes(encoded("bmp"))


def link_to_itself(root: Path) -> None:
    (root / "train" / "good" / "a.png").symlink_to(root / "train" / "good" / "a.png")


def turned_image(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (root / "test" / "hole" / "000.png").write_bytes(encoded("png", exif=exif))


def find(dataset: str, data_dir: str | None, name: str) -> Case:
    """A category is asked for that may not be there."""

    def case(place: Path) -> object:
        make_category(place / "data" / "grid")
        (place / "empty").mkdir()
        root = None if data_dir is None else place / data_dir
        return datasets.categories(dataset, root, name)

    return case


def archive(content: bytes, suffix: str) -> Case:
    """`data_dir` is a file."""

    def case(place: Path) -> object:
        (place / f"data{suffix}").write_bytes(content)
        return datasets.categories("mvtec_ad", place / f"data{suffix}", "all")

    return case


def stray_mask(root: Path) -> None:
    mask = root / "ground_truth" / "hole" / "001_mask.png"
    mask.rename(mask.with_name("001_label.png"))


def two_masks(root: Path) -> None:
    folder = root / "ground_truth" / "hole"
    (folder / "001_gt.png").write_bytes((folder / "001_mask.png").read_bytes())


def mask_of_a_good_image(root: Path) -> None:
    (root / "ground_truth" / "good").mkdir()
    (root / "ground_truth" / "good" / "000_mask.png").write_bytes(png(np.eye(64, dtype=np.uint8)))


def masks_all_zero(root: Path) -> None:
    for mask in (root / "ground_truth" / "hole").iterdir():
        mask.write_bytes(png(np.zeros((64, 64), np.uint8)))


def many_faults(root: Path) -> None:
    for path in (root / "train" / "good").iterdir():
        path.write_bytes(TEXT)


def tiff(values: np.ndarray) -> Case:
    """A floating-point training image has these values."""
    buffer = io.BytesIO()
    Image.fromarray(values.astype(np.float32)).save(buffer, "tiff")
    return image(buffer.getvalue(), "train/good/a.tiff")


TEXT = b"this is no such file"
PNG = png(texture(0))
GREY = texture(0)[..., 0]
FILES: dict[str, Case] = {
    # Images.
    "image: zero bytes": image(b""),
    "image: text": image(TEXT),
    "image: truncated in the header": image(PNG[:20]),
    "image: PNG truncated after the header": image(PNG[: len(PNG) // 2]),
    "image: JPEG truncated after the header": image(encoded("jpeg")[:-500], "train/good/a.jpg"),
    "image: decompression bomb": image(bomb(60_000, 60_000)),
    "image: no pixels": image(bomb(0, 0)),
    "image: 1 pixel high": image(encoded("png", size=(64, 1))),
    "image: animated": image(encoded("png", 3)),
    "image: pages": image(encoded("tiff", 2), "train/good/a.tiff"),
    "image: GIF named PNG": image(encoded("gif")),
    "image: EPS named PNG": image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n"),
    "image: floating-point, from 0 to 255": tiff(GREY),
    "image: NaN in it": tiff(np.where(GREY > 100, np.nan, 0.5)),
    "image: turned by EXIF, with a mask": category(turned_image),
    "image: link to itself": category(link_to_itself),
    "mask: zero bytes": image(b"", "ground_truth/hole/001_mask.png"),
    "mask: of another size": category(mask_of_another_size),
    "mask: missing": category(lambda root: os.remove(root / "ground_truth/hole/001_mask.png")),
    "mask: none marks a pixel": category(masks_all_zero),
    "mask: of two images": category(same_name_twice),
    "mask: of no image": category(stray_mask),
    "mask: two of one image": category(two_masks),
    "mask: of a good image": category(mask_of_a_good_image),
    "mask: ignore.png marks nothing": image(png(np.zeros((64, 64), np.uint8)), "ignore.png"),
    "mask: ignore.png marks everything": image(png(np.ones((64, 64), np.uint8)), "ignore.png"),
    # Data sets.
    "data: no folder": find("mvtec_ad", "nowhere", "all"),
    "data: empty folder": find("mvtec_ad", "empty", "all"),
    "data: not set": find("mvtec_ad", None, "all"),
    "data: no such category": find("mvtec_ad", "data", "gird"),
    "data: no such kind of data set": find("imagenet", "data", "all"),
    "data: no good images": category(no_images),
    "data: several faulty files": category(many_faults),
    "data: no areas that suffice": category(lambda root: None, "mvtec_loco"),
    "data: an image without label": category(lambda root: None, "ksdd"),
    "data: no splits": category(lambda root: None, "real_iad"),
    "data: torn archive": archive(encoded("png") * 3, ".tar.xz"),
}
