"""The figure that choices are made by: how well a run tells made-up defects from normal images.

Its held-out normal images are the normal ones, and the defects are made on them; no test image is
looked at.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from pfm_jax import anomalies, files, images, mapping, metrics, scoring, standard
from pfm_jax.config import Config
from pfm_jax.datasets.lazy import Lazy
from pfm_jax.datasets.loose import encoded
from pfm_jax.features import Networks
from pfm_jax.mapping import FoldedHeads
from pfm_jax.run import Sources, dataset_of, restore
from pfm_jax.types import Example, InputError

MOST = 64
"""Held-out images that count; the first ones."""

FEW = 16
"""If there are fewer, each counts in its eight orientations."""

ORIENTATIONS = 8


def made_up(held_out: Sequence[Example]) -> Lazy:
    """For each image it and, after it, its defect of each kind in `anomalies.KINDS`, at its own
    resolution; always the same ones.
    """
    turned = ORIENTATIONS if len(held_out) < FEW else 1
    count = turned * min(len(held_out), MOST)

    def picture(number: int) -> np.ndarray:
        example, turn = held_out[number // turned], number % turned
        array = np.asarray(images.open_rgb(example.image, example.path))
        return np.ascontiguousarray(np.rot90(array[:, ::-1] if turn >= 4 else array, turn))

    def one(index: int) -> Example:
        number, kind = divmod(index, 1 + len(anomalies.KINDS))
        image, path = picture(number), f"{held_out[number // turned].path}#{index}"
        if kind == 0:
            return Example(path, encoded(image, path), None, 0, "good")
        donor = picture((number + 1) % count)
        size = image.shape[1::-1]
        if donor.shape != image.shape:
            donor = np.asarray(Image.fromarray(donor).resize(size))
        rng, name = np.random.default_rng((number, kind)), anomalies.KINDS[kind - 1]
        changed, mask = anomalies.make(name, image, donor, rng)
        drawn = encoded(255 * mask.astype(np.uint8), path)
        return Example(path, encoded(changed, path), drawn, 1, name)

    return Lazy(one, range(count * (1 + len(anomalies.KINDS))))


def measure(
    networks: Networks, heads: FoldedHeads, held_out: Sequence[Example], config: Config
) -> dict[str, Any]:
    """The proxy of trained heads.

    Returns:
        `image_auroc`, the mean over the kinds of defects; that of each kind under `kinds`; and
        `pro_auc` of the maps of the made-up images on their masks.

    Raises:
        InputError: there is no held-out image.
    """
    if not held_out:
        raise InputError("no image is held out: train with --config.data.held_out=0.2")
    examples, size = made_up(held_out), config.data.image_size
    found = list(scoring.score_examples(networks, heads, examples, config, "proxy"))
    scores = np.concatenate([maps.image_scores for maps in found])
    scores = scores.reshape(-1, 1 + len(anomalies.KINDS))
    labels = np.repeat([0, 1], len(scores))
    kinds = {
        kind: metrics.image_auroc(np.concatenate([scores[:, 0], scores[:, 1 + index]]), labels)
        for index, kind in enumerate(anomalies.KINDS)
    }
    maps = np.concatenate([one.fused for one in found])
    _, pro_auc = metrics.pixel_metrics(maps, images.masks(examples, size))
    return {"image_auroc": float(np.mean(list(kinds.values()))), "kinds": kinds, "pro_auc": pro_auc}


def measure_run(workdir: Path, category: str, sources: Sources) -> dict[str, Any]:
    """That of a trained run; also written to `proxy.json` in its folder.

    Raises:
        InputError: no such run, without held-out images, or with other data than it had.
    """
    state, old, networks = restore(workdir, category, sources)
    dataset = dataset_of(old, sources, workdir / category)
    heads = jax.jit(mapping.fold)(state.params, state.batch_stats)
    heads = standard.measured(networks, heads, dataset.train, old.config)
    found = measure(networks, heads, dataset.held_out, old.config)
    files.write(workdir / category / "proxy.json", (json.dumps(found, indent=2) + "\n").encode())
    return found
