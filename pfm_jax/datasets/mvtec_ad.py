"""MVTec AD (Bergmann et al., 2019) and data sets in its layout, as a TFDS builder.

`data_dir` is the folder of the categories, or the published archive as downloaded
(`mvtec_anomaly_detection.tar.xz`, or that of one category), which is unpacked once into the cache.
Examples are cached as array_record files under the fingerprint of their source; no TensorFlow is
needed. Masks are required. See `folder` for the layout.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from pfm_jax.datasets import folder, images
from pfm_jax.datasets.archive import locate
from pfm_jax.datasets.folder import categories
from pfm_jax.datasets.lazy import Lazy
from pfm_jax.system.files import cache_dir
from pfm_jax.types import Dataset, Example, InputError

__all__ = ["categories", "load", "locate"]


class MvtecAd(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of the category in `root`; the mask of a good image is zero.

    Further arguments are the builder's; `data_dir` must differ between categories.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, root: str | Path, **kwargs: Any) -> None:
        self.root = Path(root)
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        train, test, _ = folder.scan(self.root, masks_required=True)
        self.entries = {"train": train, "test": test}
        modes = {_mode(entry.image) for entry in train + test}
        self.channels = 1 if modes == {"L"} else 3
        features = {
            "path": tfds.features.Text(),
            "image": tfds.features.Image(shape=(None, None, self.channels)),
            "mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
            "label": tfds.features.Scalar(np.int64),
            "defect": tfds.features.Text(),
        }
        return self.dataset_info_from_configs(
            features=tfds.features.FeaturesDict(features),
            supervised_keys=None,
            homepage="https://www.mvtec.com/company/research/datasets/mvtec-ad",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        del dl_manager  # The data set requires registration, so it is downloaded by hand.
        return {split: self._generate_examples(split) for split in self.entries}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        for index, example in enumerate(folder.examples(self.root, self.entries[split])):
            record = {
                **dataclasses.asdict(example),
                "image": io.BytesIO(self._encoded(example)),
                "mask": io.BytesIO(example.mask or _empty_mask(example)),
            }
            yield index, record

    def _encoded(self, example: Example) -> bytes:
        """Original file if it decodes to `self.channels` as is, else an RGB PNG."""
        if _mode(io.BytesIO(example.image)) == ("L" if self.channels == 1 else "RGB"):
            return example.image
        return images.saved(images.open_rgb(example.image, example.path), "png")


def _mode(file: Path | io.BytesIO) -> str:
    with images.opened(file, str(file)) as image:
        return image.mode


def _empty_mask(example: Example) -> bytes:
    with Image.open(io.BytesIO(example.image)) as image:
        return images.saved(Image.new("L", image.size), "png")


def _examples(source: Sequence[dict[str, Any]]) -> Lazy:
    """Lazy examples of a prepared split."""

    def one(index: int) -> Example:
        record = source[index]
        path, label, defect = record["path"], int(record["label"]), record["defect"]
        mask = record["mask"] if label else None
        return Example(path.decode(), record["image"], mask, label, defect.decode())

    return Lazy(one, range(len(source)))


def load(root: Path, category: str) -> Dataset:
    """Loads a category, preparing it in the cache on first use. Raises InputError."""
    root = root / category
    train, test, _ = folder.scan(root, masks_required=True)
    fingerprint = folder.fingerprint(root, train, test)
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    place = cache_dir() / "tfds" / fingerprint[:16]
    builder = MvtecAd(root=root, data_dir=place, file_format="array_record")
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints its progress
            builder.download_and_prepare()
    except RuntimeError as error:  # a full disk
        reason = " ".join(str(error).split())
        raise InputError(f"{place}: can't prepare {root.name} here ({reason})") from error
    decoders = {"image": tfds.decode.SkipDecoding(), "mask": tfds.decode.SkipDecoding()}
    source = builder.as_data_source(decoders=decoders)
    good, mixed = _examples(source["train"]), _examples(source["test"])
    return Dataset(root.name, good, mixed, has_masks=True, fingerprint=fingerprint)
