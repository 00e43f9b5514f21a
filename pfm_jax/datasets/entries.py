"""Files of a data set: each read and decoded once before anything is computed, then on access."""

from __future__ import annotations

import functools
import hashlib
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import NamedTuple

import numpy as np
from PIL import Image

from pfm_jax.datasets import decoding
from pfm_jax.datasets.decoding import Note
from pfm_jax.datasets.lazy import Lazy, ignoring
from pfm_jax.datasets.masks import NO_DEFECT, decode_mask, to_ignore
from pfm_jax.system.files import shown
from pfm_jax.types import Dataset, Example, InputError, Saturation

MOST_FAULTS = 20  # told of a data set
SPLIT_SEED = 0

Known = Mapping[int, Saturation]


class Entry(NamedTuple):
    """Files, label and defect of one example; good by default.

    Attributes:
        masks: what any of them marks is anomalous.
        label: 0 good, 1 anomalous.
    """

    image: Path
    masks: tuple[Path, ...] = ()
    label: int = 0
    defect: str = "good"


class Layout(NamedTuple):
    """Entries of a category, all below `root`, and lines to tell about what else lies there.

    `held_out` and `saturations`: see `types.Dataset`; `ignored` is the file of that mask.
    """

    root: Path
    train: Sequence[Entry]
    test: Sequence[Entry]
    warnings: Sequence[str] = ()
    held_out: Sequence[Entry] = ()
    saturations: Known = MappingProxyType({})
    ignored: Path | None = None


class Findings(NamedTuple):
    """Facts about an entry.

    Attributes:
        digests: sha256 of the image, then of each mask.
        faults, notes: of any of its files.
        marked: whether a mask marks a pixel.
    """

    digests: list[bytes]
    faults: list[str]
    notes: list[tuple[Path, Note]]
    marked: list[bool]


def read(path: Path) -> bytes:
    """Content of a file. Raises InputError if it can't be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def drawn(total: int, count: int) -> set[int]:
    """Indices of `count` of `total` files, drawn by a fixed seed, for want of a published split."""
    return set(np.random.default_rng(SPLIT_SEED).permutation(total)[:count].tolist())


def examples(
    root: Path, entries: Sequence[Entry], value_range: float = 0.0, *, with_regions: bool = False
) -> Lazy:
    """Examples read lazily from files below `root`, in the given order."""

    def one(index: int) -> Example:
        image, masks, label, defect = entries[index]
        name, truth = shown(image.relative_to(root)), _truth(masks)
        regions = tuple(map(read, masks)) if with_regions else ()
        return Example(name, read(image), truth, label, defect, value_range, regions)

    return Lazy(one, range(len(entries)))


def _truth(masks: Sequence[Path]) -> bytes | None:
    """Encoded mask of one image; of several files, of what any marks."""
    if len(masks) < 2:
        return read(masks[0]) if masks else None
    marked = [decode_mask(read(mask), str(mask)).marked for mask in masks]
    return decoding.saved(Image.fromarray(np.any(marked, 0)), "png")


def dataset(
    layout: Layout, category: str, value_range: float = 0.0, *, masks_required: bool = False
) -> Dataset:
    """Category of these entries, once all of their files were decoded.

    Raises InputError: no training images; masks for only some anomalous images (or, with
    `masks_required`, any missing mask), or masks that mark nothing; or faulty files, of which it
    lists up to `MOST_FAULTS`: unreadable ones, or masks that don't fit.
    """
    root, train, test, warnings, held_out, saturations, mask = layout
    if not train:
        raise InputError(f"{root}: no training images")
    has_masks = _has_masks(test, masks_required)
    with ThreadPoolExecutor() as pool:
        one = functools.partial(_findings, value_range, saturations)
        found = list(pool.map(one, (*train, *held_out, *test)))
    if faults := [fault for one in found for fault in one.faults]:
        raise InputError(_listed(root, faults))
    if has_masks and not any(mark for one in found for mark in one.marked):
        raise InputError(f"{root}: no mask marks a pixel; give masks that do, or none")
    normal = [*train, *held_out]
    ignored = to_ignore(decode_mask(read(mask), str(mask)).marked, str(mask)) if mask else None
    told = [] if ignored is None else [f"{mask}: {ignored.mean():.1%} of each image is ignored"]
    return Dataset(
        category,
        ignoring(examples(root, train, value_range), ignored),
        examples(root, test, value_range, with_regions=bool(saturations)),
        has_masks,
        _fingerprint(root, normal, found[: len(normal)], ignored),
        held_out=examples(root, held_out, value_range),
        test_fingerprint=_fingerprint(root, test, found[len(normal) :]),
        saturations=saturations,
        ignored=ignored,
        warnings=(*warnings, *told, *_doubts(found), *_unmeasured(root, test)),
    )


def _has_masks(test: Sequence[Entry], masks_required: bool) -> bool:
    """Whether anomalous images have masks. Raises InputError: some have, or must have and don't."""
    without = [entry.image for entry in test if entry.label and not entry.masks]
    has_masks = len(without) < sum(entry.label for entry in test)
    if without and (masks_required or has_masks):
        wanted = f"ground_truth/{without[0].parent.name}/{without[0].stem}_mask.png"
        raise InputError(f"{_several(without)}: no mask; expected {wanted}")
    return has_masks


def _findings(value_range: float, known: Known, entry: Entry) -> Findings:
    """Reads and decodes the files of an entry."""
    found = Findings([], [], [], [])
    size = ""
    try:
        content = read(entry.image)
        found.digests.append(hashlib.sha256(content).digest())
        with decoding.turn(content):
            image, notes, is_turned = decoding.decode(content, str(entry.image), value_range)
        found.notes.extend((entry.image, note) for note in notes)
        size = f"{image.width}x{image.height}"
        if entry.masks and is_turned:
            turned = "EXIF says it is rotated; rotate its pixels instead"
            found.faults.append(f"{entry.image}: {turned}")
    except InputError as error:
        found.faults.append(str(error))
    for mask in entry.masks:
        _check_mask(mask, entry, size, known, found)
    if entry.masks and entry.label and not any(found.marked) and not found.faults:
        found.notes.append((entry.masks[0], Note(NO_DEFECT)))
    return found


def _check_mask(mask: Path, entry: Entry, size: str, known: Known, found: Findings) -> None:
    """Adds to what is found; `size` is that of the image as text, empty if it can't be read."""
    try:
        content = read(mask)
        found.digests.append(hashlib.sha256(content).digest())
        marked, notes, value = decode_mask(content, str(mask))
    except InputError as error:
        found.faults.append(str(error))
        return
    found.notes.extend((mask, note) for note in notes)
    own = f"{marked.shape[1]}x{marked.shape[0]}"
    if size and own != size:
        wrong = f"is {size} pixels, its mask {own}; resize the mask to match"
        found.faults.append(f"{entry.image}: {wrong}")
    if marked.any() and not entry.label:
        found.faults.append(f"{mask}: marks a defect, but {entry.image} is a good image")
    if known and marked.any() and value not in known:
        values = ", ".join(map(str, sorted(known)))
        found.faults.append(f"{mask}: has the value {value}; must be one of {values}")
    found.marked.append(bool(marked.any()))


def _listed(root: Path, faults: Sequence[str]) -> str:
    """Faults as one message."""
    if len(faults) == 1:
        return faults[0]
    left = len(faults) - MOST_FAULTS
    more = [f"and {left} more"] if left > 0 else []
    return "\n".join([f"{root}: {len(faults)} files are faulty:", *faults[:MOST_FAULTS], *more])


def _doubts(found: Sequence[Findings]) -> Iterator[str]:
    """Lines that tell the notes: one for all files of one kind, with the highest value."""
    kinds: dict[str, list[tuple[Path, Note]]] = defaultdict(list)
    for path, note in (one for each in found for one in each.notes):
        kinds[note.text].append((path, note))
    for same in kinds.values():
        highest = max((note for _, note in same), key=lambda note: note.value)
        yield f"{_several([path for path, _ in same])}: {highest}"


def _several(paths: Sequence[Path]) -> str:
    """The first path, and how many more there are."""
    return f"{paths[0]}" + (f" (and {len(paths) - 1} more)" if len(paths) > 1 else "")


def _unmeasured(root: Path, test: Sequence[Entry]) -> Iterator[str]:
    """A line that tells what can't be measured for want of test images, if anything."""
    labels = {entry.label for entry in test}
    missing = [kind for label, kind in enumerate(("good", "anomalous")) if label not in labels]
    if missing:
        what = "AUROC, AP and PRO" if "anomalous" in missing else "image AUROC and AP"
        yield f"{root}: no {' and no '.join(missing)} test images; {what} can't be measured"


def _fingerprint(
    root: Path,
    entries: Sequence[Entry],
    found: Sequence[Findings],
    ignored: np.ndarray | None = None,
) -> str:
    """sha256 (hex) of label, relative path and content of every image and mask."""
    digest = hashlib.sha256()
    if ignored is not None:
        digest.update(f"{ignored.shape}".encode() + ignored.tobytes())
    for entry, one in zip(entries, found, strict=True):
        for path, content in zip((entry.image, *entry.masks), one.digests, strict=True):
            name = f"{entry.label}\0{shown(path.relative_to(root))}\0"
            digest.update(name.encode() + content)
    return digest.hexdigest()
