"""The methods that others would use, behind the functions that a detector needs.

A method is one file. Its `maps` turns what it keeps of normal images, arrays by name, and new
images into anomaly maps. What it keeps is made by `fit`, which depends on the images, its settings
and a key alone; or learnt on whole images, in the loop of the heads: then it has an `objective` and
`targets`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
from jax import Array
from jaxtyping import Bool, UInt8

from pfm_jax.backbones.networks import Networks
from pfm_jax.baselines import (
    autoencoder,
    cnn_dict,
    padim,
    patchcore,
    spade,
    stfpm,
    uninformed,
)
from pfm_jax.baselines.features import Found, Memory
from pfm_jax.config import Config
from pfm_jax.methods import Baseline
from pfm_jax.model import scoring
from pfm_jax.model.problem import Objective
from pfm_jax.model.scoring import ScoringSpec
from pfm_jax.system import devices
from pfm_jax.types import Example, ScoreMaps


class Fitted(NamedTuple):
    """A method that is fitted at once.

    Attributes:
        maps: network, memory, images, settings, what is ignored -> `features.Found`.
        fit: network, normal images, their size, settings, key -> memory.
        grown: memory, settings, how many times as many normal images -> a memory as large as
            theirs, made of copies, to measure speed with; None if its size does not depend on them.
    """

    maps: Callable[..., Found]
    fit: Callable[..., Memory]
    grown: Callable[..., Memory] | None = None


class Learnt(NamedTuple):
    """A method that is trained on whole images.

    Attributes:
        maps: as of `Fitted`.
        objective: settings, name of the network, side of the images -> what is learnt.
        targets: network, images, settings -> what is to be learnt of them `[B, T]`.
        pixels: whether the images are seen, too.
    """

    maps: Callable[..., Found]
    objective: Callable[..., Objective]
    targets: Callable[..., Array]
    pixels: bool = True


FITTED = {
    "spade": Fitted(spade.maps, spade.fit, spade.grown),
    "patchcore": Fitted(patchcore.maps, patchcore.fit, patchcore.grown),
    "padim": Fitted(padim.maps, padim.fit),
    "cnn_dict": Fitted(cnn_dict.maps, cnn_dict.fit),
}
LEARNT = {
    "stfpm": Learnt(stfpm.maps, stfpm.objective, stfpm.targets),
    "uninformed": Learnt(uninformed.maps, uninformed.objective, uninformed.targets),
    "ae_ssim": Learnt(autoencoder.maps, autoencoder.objective, autoencoder.targets, pixels=False),
    "vae": Learnt(autoencoder.maps, autoencoder.objective, autoencoder.targets, pixels=False),
}
"""Name of a method, as in `methods.KINDS` -> its functions."""


def settings(config: Config) -> Baseline:
    """Settings of a recipe's baseline, which it has."""
    assert config.baseline is not None
    return config.baseline


def fit(networks: Networks, examples: Sequence[Example], config: Config) -> Memory:
    """Fits the recipe's baseline to normal images, on every device.

    Raises InputError: an image that can't be read, or more features than there is memory for.
    """
    method, key = settings(config), jax.random.key(config.seed)
    given = networks.source, examples, config.data.image_size
    return devices.replicate(FITTED[method.method].fit(*given, method, key))


def grows(method: Baseline) -> bool:
    """Whether what a method keeps, and so its speed, depends on the number of normal images."""
    return method.method in FITTED and FITTED[method.method].grown is not None


def grown(memory: Memory, method: Baseline, times: float) -> Memory:
    """A memory as large as of `times` as many normal images; see `Fitted.grown`."""
    copies = FITTED[method.method].grown
    return copies(memory, method, times) if copies else memory


def score(
    networks: Networks,
    memory: Memory,
    images: UInt8[Array, "B H W 3"],
    spec: ScoringSpec,
    ignored: Bool[Array, "H W"] | None = None,
) -> ScoreMaps:
    """Scores images by a baseline, which has no levels; as `scoring.score`."""
    images, method = scoring.blanked(images, ignored), spec.baseline
    assert method is not None
    functions = FITTED.get(method.method) or LEARNT[method.method]
    found = functions.maps(networks.source, memory, images, method, ignored)
    whole = {"": scoring.upsample(found.maps, *images.shape[1:3])}
    fused = scoring.fuse(whole, spec.scoring, ignored)
    scores = fused.image_scores if found.image_scores is None else found.image_scores
    return ScoreMaps({}, fused.fused, scores)
