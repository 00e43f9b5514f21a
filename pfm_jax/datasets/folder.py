"""Categories as plain folders, in the layout popularised by MVTec AD.

    ROOT/train/good/*.png
    ROOT/validation/good/*.png                  optional, held out from training
    ROOT/test/good/*.png                        optional, as all test images are
    ROOT/test/DEFECT/NAME.png
    ROOT/ground_truth/DEFECT/NAME_mask.png      optional, for all anomalous images or for none

    ROOT/ignore.png                             optional, white where all images are ignored

A mask may also be called NAME, NAME_gt or mask_NAME, with the suffix of any image; those of one
image may lie in a folder NAME. `ok` and `normal` are the same as `good`. Subfolders are entered
everywhere. `ROOT` may also hold good images directly and nothing else; all of them are for
training then.
"""

from __future__ import annotations

import logging
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pfm_jax.datasets.archive import locate
from pfm_jax.datasets.entries import Entry, Layout, dataset
from pfm_jax.datasets.walk import (
    IGNORED,
    MASK,
    SUFFIXES,
    children,
    image_files,
    is_folder,
    is_hidden,
    told,
)
from pfm_jax.types import Dataset, InputError

__all__ = ["categories", "load", "locate"]

log = logging.getLogger(__name__)

GOOD_NAMES = ("good", "ok", "normal")
ELSEWHERE = "in none of train/good, validation/good, test/KIND and ground_truth/KIND"

Parts = tuple[str, ...]
"""Names of the folders that lead to a file, and its own."""


def categories(root: Path) -> list[str]:
    """Categories below `root`, sorted, or its own name if it is one. Raises InputError: none."""
    root = _inner(root)
    folders = _folders(root)
    found = [one.name for one in folders if _is_category(one)]
    if found:
        if others := [one.name for one in folders if one.name not in found]:
            log.warning(
                "data_dir=%s: no categories, without train/good: %s", root, ", ".join(others)
            )
        return found
    if _is_category(root) or _is_plain(root):
        return [root.resolve().name]
    raise InputError(
        f"data_dir={root}: contains no category (a subfolder with train/good), nor images alone"
    )


def load(root: Path, category: str, value_range: float = 0.0) -> Dataset:
    """Loads a category; masks are optional. Raises InputError; see `scan` and `entries.dataset`."""
    return dataset(scan(folder_of(root, category)), category, value_range)


def load_with_masks(root: Path, category: str, value_range: float = 0.0) -> Dataset:
    """Loads a category whose anomalous images must have masks. Raises InputError; see `load`."""
    layout = scan(folder_of(root, category))
    return dataset(layout, category, value_range, masks_required=True)


def folder_of(root: Path, category: str) -> Path:
    """Folder of one of the `categories` below `root`; `root` itself if it is the category."""
    root = _inner(root)
    return root / category if _is_category(root / category) else root


def scan(root: Path, place_of: Callable[[Parts], Parts] = tuple) -> Layout:
    """Entries of a category; `place_of` turns the parts of a path below `root` into this layout's.

    Raises:
        InputError: no training images, a mask that belongs to no image, or to more than one, or
            an image with several masks that are not in a folder of its name.
    """
    passed: Counter[str] = Counter()
    plain = not _is_category(root)
    train, held_out = [], []
    tested: dict[Path, Parts] = {}  # image -> its place below `test`
    masks: dict[Path, Parts] = {}
    for path in image_files(root, passed):
        split, *place = place_of(path.relative_to(root).parts)
        match split.lower(), place:
            case "train", [kind, _, *_] if is_good(kind):
                train.append(path)
            case "validation", [kind, _, *_] if is_good(kind):
                held_out.append(path)
            case "test", [_, _, *_]:
                tested[path] = tuple(place)
            case "ground_truth", [_, *_]:
                masks[path] = tuple(place)
            case _, [] if plain:
                train.append(path)
            case _:
                passed[ELSEWHERE] += 1
    if not train:
        raise InputError(f"{root / 'train' / 'good'}: no training images")
    ignored = root / IGNORED if (root / IGNORED).is_file() else None
    passed[MASK] -= ignored is not None
    owned = _masks_of(tested, masks)
    test = [
        Entry(path, tuple(owned[path]), int(not is_good(kind)), "good" if is_good(kind) else kind)
        for path, (kind, *_) in tested.items()
    ]
    lines = [*told(root, passed), *_entered(root, [*train, *held_out, *tested])]
    normal, aside = ([*map(Entry, paths)] for paths in (train, held_out))
    return Layout(root, normal, test, lines, aside, ignored=ignored)


def _entered(root: Path, found: Sequence[Path]) -> list[str]:
    """A line that names the folders of good images that hold folders, whose images count too."""
    deep = {
        path.relative_to(root).parts[:3] for path in found if len(path.relative_to(root).parts) > 3
    }
    names = ["/".join(parts) for parts in sorted(deep) if is_good(parts[1])]
    several = f"{', '.join(names[:5])}{' and others' if len(names) > 5 else ''}"
    return [f"{root}: images in these folders count as good: {several}"] if names else []


def _masks_of(tested: Mapping[Path, Parts], masks: Mapping[Path, Parts]) -> dict[Path, list[Path]]:
    """Test image -> its masks. Raises InputError; see `scan`."""
    named: dict[Path, list[Path]] = defaultdict(list)
    for path, parts in tested.items():
        named[_name(parts).with_suffix("")].append(path)
    found: dict[Path, list[Path]] = defaultdict(list)
    for mask, parts in masks.items():
        place = _name(parts)
        wanted = [place.with_name(name) for name in _image_names(place.stem)] + [place.parent]
        owners = next((named[one] for one in wanted if one in named), [])
        if not owners:
            raise InputError(
                f"{mask}: a mask of no test image; none in {place.parent} is "
                f"called {' or '.join(one.name for one in wanted)}"
            )
        if len(owners) > 1:
            raise InputError(f"{mask}: mask of two images whose names differ only in suffix")
        found[owners[0]].append(mask)
    for image, own in found.items():
        apart = {mask.parent.name for mask in own} == {image.stem}
        if len(own) > 1 and not apart:
            raise InputError(f"{own[0]}: {image} has another mask, {own[1]}; keep one")
    return found


def _name(place: Parts) -> Path:
    """Path below `test` or `ground_truth`, so that an image and its mask are called alike.

    Accents are composed (Macs decompose them), and folders of good images all are `good`.
    """
    kind, *rest = (unicodedata.normalize("NFC", part) for part in place)
    return Path("good" if rest and is_good(kind) else kind, *rest)


def _image_names(mask: str) -> list[str]:
    """Names, without suffix, that the image of a mask may have."""
    return list(
        dict.fromkeys(
            [mask, mask.removesuffix("_mask"), mask.removesuffix("_gt"), mask.removeprefix("mask_")]
        )
    )


def is_good(name: str) -> bool:
    """Whether a folder of this name holds good images."""
    return name.lower() in GOOD_NAMES


def _is_category(folder: Path) -> bool:
    train = [one for one in _folders(folder) if one.name.lower() == "train"]
    return any(is_good(one.name) for place in train for one in _folders(place))


def _is_plain(root: Path) -> bool:
    """Whether a folder holds images, and none of its subfolders does."""
    found = image_files(root, Counter())
    return bool(found) and all(path.parent == root for path in found)


def _folders(root: Path) -> list[Path]:
    """Folders in a folder, sorted, but for hidden ones; empty if it is none."""
    found = children(root) if is_folder(root) else []
    return [one for one in found if not is_hidden(one) and is_folder(one)]


def _inner(root: Path) -> Path:
    """The folder of the categories, past folders that hold one folder and no image.

    Raises InputError: no such folder.
    """
    if not is_folder(root):
        raise InputError(f"data_dir={root}: no such folder")
    folders = _folders(root)
    images = any(one.suffix.lower() in SUFFIXES for one in children(root))
    if len(folders) != 1 or images or _is_category(root) or _is_category(folders[0]):
        return root
    return _inner(folders[0])
