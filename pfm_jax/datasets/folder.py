"""Categories as plain folders, in the layout popularised by MVTec AD.

    ROOT/train/good/*.png
    ROOT/test/good/*.png
    ROOT/test/DEFECT/NAME.png
    ROOT/ground_truth/DEFECT/NAME_mask.png     (or NAME.png; optional in a plain folder)

Images have any of `SUFFIXES`, masks a lossless one; other files are ignored. `ok` (as in BTAD)
is the same as `good`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from pfm_jax.datasets import images
from pfm_jax.datasets.archive import locate
from pfm_jax.datasets.lazy import Lazy
from pfm_jax.system.files import shown
from pfm_jax.types import Dataset, Example, InputError

__all__ = ["categories", "load", "locate"]

SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"}
MASK_SUFFIXES = (".png", ".bmp", ".tif", ".tiff")
GOOD_NAMES = ("good", "ok")


class Entry(NamedTuple):
    """Files, label and defect of one example; good by default."""

    image: Path
    mask: Path | None = None
    label: int = 0
    defect: str = "good"


def examples(root: Path, entries: Sequence[Entry]) -> Lazy:
    """Examples read lazily from files below `root`, in the given order."""

    def one(index: int) -> Example:
        image, mask, label, defect = entries[index]
        name, truth = shown(image.relative_to(root)), read(mask) if mask else None
        return Example(name, read(image), truth, label, defect)

    return Lazy(one, range(len(entries)))


def read(path: Path) -> bytes:
    """Content of a file. Raises InputError if it can't be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def images_in(folder: Path) -> list[Path]:
    """Image files directly in a folder, sorted; empty if the folder is missing."""
    found = folder.iterdir() if folder.is_dir() else ()
    return sorted(path for path in found if path.suffix.lower() in SUFFIXES)


def categories(root: Path) -> list[str]:
    """Categories below `root`, sorted. Raises InputError if there are none."""
    if not root.is_dir():
        raise InputError(f"data_dir={root}: no such folder")
    found = {path.parent.parent.name for g in GOOD_NAMES for path in root.glob(f"*/train/{g}")}
    if not found:
        raise InputError(f"data_dir={root}: contains no category (a subfolder with train/good)")
    return sorted(found)


def scan(root: Path, *, masks_required: bool) -> tuple[list[Entry], list[Entry], bool]:
    """Training entries, test entries, and whether anomalous images have masks.

    Raises:
        InputError: an empty split, a test split of one class, masks for only some anomalous
            images (or, with `masks_required`, any missing mask), an unreadable image, or a mask
            whose size differs from its image's.
    """
    train = [Entry(path) for name in GOOD_NAMES for path in images_in(root / "train" / name)]
    if not train:
        raise InputError(f"{root / 'train' / 'good'}: no training images")
    test: list[Entry] = []
    for folder in sorted((root / "test").glob("*")):
        for path in images_in(folder):
            if folder.name in GOOD_NAMES:
                test.append(Entry(path))
            else:
                test.append(Entry(path, _mask_of(root, folder.name, path), 1, folder.name))
    return train, test, check(root, train, test, masks_required=masks_required)


def check(
    root: Path, train: Sequence[Entry], test: Sequence[Entry], *, masks_required: bool
) -> bool:
    """Whether anomalous images have masks. Raises InputError; see `scan`."""
    if not train:
        raise InputError(f"{root}: no training images")
    for label, kind in enumerate(("good", "anomalous")):
        if not any(entry.label == label for entry in test):
            raise InputError(f"{root}: no {kind} test images; metrics are undefined")
    with ThreadPoolExecutor() as pool:
        list(pool.map(_check_header, (*train, *test)))  # raises the first fault, in this order
    masks = [entry.mask for entry in test if entry.mask]
    if twice := next((mask for mask in masks if masks.count(mask) > 1), None):
        raise InputError(f"{twice}: mask shared by two images whose names differ only in suffix")
    without = [entry.image for entry in test if entry.label and not entry.mask]
    has_masks = len(without) < sum(entry.label for entry in test)
    if without and (masks_required or has_masks):
        raise InputError(
            f"{without[0]}: no mask (and {len(without) - 1} others lack one); expected "
            f"{root}/ground_truth/{without[0].parent.name}/{without[0].stem}_mask.png"
        )
    return has_masks


def _check_header(entry: Entry) -> None:
    """Finds faults before training rather than after it: in headers, and in pixels of PNG files.

    The EXIF data of a PNG may follow its pixels, so Pillow decodes those to find it.
    """
    headers = [images.header(path) for path in entry[:2] if path]
    if entry.mask and any(turned for _, turned in headers):
        raise InputError(f"{entry.image}: EXIF says it is rotated; rotate its pixels instead")
    sizes = [f"{width}x{height}" for (width, height), _ in headers]
    if len(set(sizes)) > 1:
        raise InputError(
            f"{entry.image}: is {sizes[0]} pixels, its mask {sizes[1]}; resize the mask to match"
        )


def _mask_of(root: Path, defect: str, image: Path) -> Path | None:
    folder = root / "ground_truth" / defect
    names = (f"{image.stem}{end}{suffix}" for end in ("_mask", "") for suffix in MASK_SUFFIXES)
    return next((folder / name for name in names if (folder / name).is_file()), None)


def fingerprint(root: Path, train: Sequence[Entry], test: Sequence[Entry]) -> str:
    """sha256 (hex) of split, label, relative path and content of every image and mask."""
    files = [
        (f"{split}\0{entry.label}\0{shown(path.relative_to(root))}\0", path)
        for split, entries in (("train", train), ("test", test))
        for entry in entries
        for path in entry[:2]
        if path
    ]
    digest = hashlib.sha256()
    with ThreadPoolExecutor() as pool:
        contents = pool.map(_sha256, (path for _, path in files))
        for (name, _), content in zip(files, contents, strict=True):
            digest.update(name.encode() + content)
    return digest.hexdigest()


def _sha256(path: Path) -> bytes:
    return hashlib.sha256(read(path)).digest()


def dataset(
    root: Path, train: Sequence[Entry], test: Sequence[Entry], category: str, *, has_masks: bool
) -> Dataset:
    """Category of these entries, whose files are below `root`."""
    digest = fingerprint(root, train, test)
    return Dataset(category, examples(root, train), examples(root, test), has_masks, digest)


def load(root: Path, category: str) -> Dataset:
    """Loads a category; masks are optional. Raises InputError; see `scan`."""
    train, test, has_masks = scan(root / category, masks_required=False)
    return dataset(root / category, train, test, category, has_masks=has_masks)
