"""The methods that others would use, behind the two functions that a detector needs.

A method is one file: its `fit` turns normal images into arrays by name, and depends on them, its
settings and a key alone; its `maps` turns those arrays and new images into anomaly maps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
from jax import Array
from jaxtyping import Bool, UInt8

from pfm_jax.backbones.networks import Networks
from pfm_jax.baselines import cnn_dict, padim, patchcore, spade
from pfm_jax.baselines.features import Found, Memory
from pfm_jax.config import Config
from pfm_jax.methods import Baseline
from pfm_jax.model import scoring
from pfm_jax.model.scoring import ScoringSpec
from pfm_jax.system import devices
from pfm_jax.types import Example, Normality, ScoreMaps


class Method(NamedTuple):
    """Functions of a method.

    Attributes:
        fit: network, normal images, their size, settings, key -> memory.
        maps: network, memory, images, settings -> `features.Found`.
        grown: memory, settings, how many times as many normal images -> a memory as large as
            theirs, made of copies, to measure speed with; None if its size does not depend on them.
    """

    fit: Callable[..., Memory]
    maps: Callable[..., Found]
    grown: Callable[..., Memory] | None = None


METHODS = {
    "spade": Method(spade.fit, spade.maps, spade.grown),
    "patchcore": Method(patchcore.fit, patchcore.maps, patchcore.grown),
    "padim": Method(padim.fit, padim.maps),
    "cnn_dict": Method(cnn_dict.fit, cnn_dict.maps),
}
"""Name of a method, as in `methods.KINDS` -> its functions."""


def fit(networks: Networks, examples: Sequence[Example], config: Config) -> Memory:
    """Fits the recipe's baseline to normal images, on every device.

    Raises InputError: an image that can't be read, or more features than there is memory for.
    """
    method, key = config.baseline, jax.random.key(config.seed)
    assert method is not None
    given = networks.source, examples, config.data.image_size
    return devices.replicate(METHODS[method.method].fit(*given, method, key))


def grows(method: Baseline) -> bool:
    """Whether what a method keeps, and so its speed, depends on the number of normal images."""
    return METHODS[method.method].grown is not None


def grown(memory: Memory, method: Baseline, times: float) -> Memory:
    """A memory as large as of `times` as many normal images; see `Method.grown`."""
    copies = METHODS[method.method].grown
    return copies(memory, method, times) if copies else memory


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
