"""Proxy metric: separation of synthetic defects from normal images by a detector.

It allows model selection without defective images: held-out images are the normal ones, and
synthetic defects are drawn on them. No test image is used.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from pfm_jax import metrics
from pfm_jax.datasets import decoding, images
from pfm_jax.datasets.inputs import encoded
from pfm_jax.datasets.lazy import Lazy
from pfm_jax.evaluation import synthetic
from pfm_jax.inference.detector import Detector
from pfm_jax.types import Example, InputError

MOST_IMAGES = 64  # the first held-out images are used
FEW_IMAGES = 16  # with fewer held-out images, each is used in all orientations
MOST_DRAWS = 20  # of a defect that lies in the ignored part
ORIENTATIONS = 8  # rotations by 90 degrees, with and without mirroring


def made_up(held_out: Sequence[Example], ignored: np.ndarray | None = None) -> Lazy:
    """Held-out images, each followed by a copy with a defect of each kind in `synthetic.KINDS`.

    Deterministic, at the original resolution. Where a part of the images is `ignored`, bool
    `[h, w]`, they are not turned, and defects lie elsewhere for the most part.
    """
    turned = ORIENTATIONS if len(held_out) < FEW_IMAGES and ignored is None else 1
    count = turned * min(len(held_out), MOST_IMAGES)

    def picture(number: int) -> np.ndarray:
        example, turn = held_out[number // turned], number % turned
        array = np.asarray(decoding.decode(example.image, example.path, example.value_range).image)
        return np.ascontiguousarray(np.rot90(array[:, ::-1] if turn >= 4 else array, turn))

    def one(index: int) -> Example:
        number, kind = divmod(index, 1 + len(synthetic.KINDS))
        image, path = picture(number), f"{held_out[number // turned].path}#{index}"
        if kind == 0:
            return Example(path, encoded(image, path), None, 0, "good")
        donor = picture((number + 1) % count)
        if donor.shape != image.shape:
            donor = np.asarray(Image.fromarray(donor).resize(image.shape[1::-1]))
        rng, name = np.random.default_rng((number, kind)), synthetic.KINDS[kind - 1]
        changed, mask = synthetic.make(name, image, donor, rng)
        if ignored is not None:
            hidden = images.mask_at(ignored, mask.shape)
            for _ in range(MOST_DRAWS):
                if mask[hidden].sum() <= mask.sum() / 2:
                    break
                changed, mask = synthetic.make(name, image, donor, rng)
        drawn = encoded(255 * mask.astype(np.uint8), path)
        return Example(path, encoded(changed, path), drawn, 1, name)

    return Lazy(one, range(count * (1 + len(synthetic.KINDS))))


def measure(detector: Detector, held_out: Sequence[Example]) -> dict[str, Any]:
    """Image AUROC by kind of synthetic defect (`kinds`), their mean, and `pro_auc` of the maps.

    Raises:
        InputError: no held-out images.
    """
    if not held_out:
        raise InputError("no held-out images: train with --config.data.held_out=0.2")
    ignored = None if detector.ignored is None else np.asarray(detector.ignored)
    examples, size = made_up(held_out, ignored), detector.config.data.image_size
    found = list(detector.stream(examples, "proxy"))
    scores = np.concatenate([maps.image_scores for maps in found])
    good, *defects = scores.reshape(-1, 1 + len(synthetic.KINDS)).T
    labels = np.repeat([0, 1], len(good))
    kinds = {
        kind: metrics.image_auroc(np.concatenate([good, own]), labels)
        for kind, own in zip(synthetic.KINDS, defects, strict=True)
    }
    maps = np.concatenate([one.fused for one in found])
    pro_auc = metrics.pro_auc(maps, images.masks(examples, size))
    return {"image_auroc": float(np.mean(list(kinds.values()))), "kinds": kinds, "pro_auc": pro_auc}
