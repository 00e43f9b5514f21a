"""TFDS builder of a category in MVTec AD's layout; importing this module registers it.

    from pfm_jax.datasets import tfds_builder
    builder = tfds_builder.MvtecAd(root="D/screw", data_dir="P", file_format="array_record")
    builder.download_and_prepare()

Nothing else in the package uses it: `mvtec_ad` reads the folder itself. No TensorFlow is needed.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from pfm_jax.datasets import decoding, entries, folder
from pfm_jax.types import Example

__all__ = ["MvtecAd"]


class MvtecAd(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of the category in `root`; the mask of a good image is zero.

    Further arguments are the builder's; `data_dir` must differ between categories.
    """

    VERSION = tfds.core.Version("1.0.0")

    def __init__(self, *, root: str | Path, **kwargs: Any) -> None:
        self.root = Path(root)
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        layout = folder.scan(self.root)
        entries.dataset(layout, self.root.name, masks_required=True)  # checks them
        train, test = [*layout.train], [*layout.test]
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
        for index, example in enumerate(entries.examples(self.root, self.entries[split])):
            record = {
                "path": example.path,
                "image": io.BytesIO(self._encoded(example)),
                "mask": io.BytesIO(example.mask or _empty_mask(example)),
                "label": example.label,
                "defect": example.defect,
            }
            yield index, record

    def _encoded(self, example: Example) -> bytes:
        """Original file if it decodes to `self.channels` as is, else an RGB PNG."""
        if _mode(io.BytesIO(example.image)) == ("L" if self.channels == 1 else "RGB"):
            return example.image
        return decoding.saved(decoding.decode(example.image, example.path).image, "png")


def _mode(file: Path | io.BytesIO) -> str:
    with decoding.opened(file, str(file)) as image:
        return image.mode


def _empty_mask(example: Example) -> bytes:
    with Image.open(io.BytesIO(example.image)) as image:
        return decoding.saved(Image.new("L", image.size), "png")
