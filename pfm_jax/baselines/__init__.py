"""The methods that others would use, behind the two functions that a detector needs.

A method is one file with two functions: `fit` turns normal images into arrays by name, and depends
on them, its settings and a key alone; `maps` turns those arrays and new images into anomaly maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType
from typing import Any

import jax
from jax import Array
from jaxtyping import Bool, UInt8

from pfm_jax.backbones.networks import Networks
from pfm_jax.baselines import cnn_dict, padim, patchcore, spade
from pfm_jax.baselines.features import Memory
from pfm_jax.config import Config
from pfm_jax.model import scoring
from pfm_jax.model.scoring import ScoringSpec
from pfm_jax.system import devices
from pfm_jax.types import Example, Normality, ScoreMaps

METHODS: dict[str, ModuleType] = {
    "spade": spade,
    "patchcore": patchcore,
    "padim": padim,
    "cnn_dict": cnn_dict,
}
"""Name of a method -> its file."""


def fit(networks: Networks, examples: Sequence[Example], config: Config) -> Memory:
    """Fits the recipe's baseline to normal images, on every device.

    Raises InputError: an image that can't be read, or more features than there is memory for.
    """
    method, key = config.baseline, jax.random.key(config.seed)
    assert method is not None
    given = networks.source, examples, config.data.image_size
    memory: Memory = METHODS[method.method].fit(*given, method, key)
    return devices.replicate(memory)


def score(
    networks: Networks,
    memory: Any,
    normality: Normality | None,
    images: UInt8[Array, "B H W 3"],
    spec: ScoringSpec,
    ignored: Bool[Array, "H W"] | None = None,
) -> ScoreMaps:
    """Scores images by a fitted baseline, which has no levels; as `scoring.score`."""
    images, method = scoring.blanked(images, ignored), spec.baseline
    assert method is not None
    found = METHODS[method.method].maps(networks.source, memory, images, method)
    whole = {"": scoring.upsample(found.maps, *images.shape[1:3])}
    fused = scoring.fuse(whole, spec.scoring, normality, ignored)
    scores = fused.image_scores if found.image_scores is None else found.image_scores
    return ScoreMaps({}, fused.fused, scores)
