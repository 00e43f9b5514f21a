"""Frozen backbones: Flax modules that return named stages, and the layout of their checkpoints.

A new family is one file beside `resnet.py` and its name in `FAMILIES`;
docs/backbones-and-weights.md has all steps.
"""

from __future__ import annotations

from pfm_jax.backbones import convnext, efficientnet_lite, resnet, vgg, vit
from pfm_jax.backbones.backbone import Backbone
from pfm_jax.types import InputError, Pair, stages

FAMILIES = (resnet, vgg, efficientnet_lite, vit, convnext)
NAMES = tuple(name for family in FAMILIES for name in family.NAMES)


def get(name: str, outputs: tuple[str, ...] | None = None) -> Backbone:
    """Architecture called `name`, with the stages `outputs`; if None, with all that can be named.

    Equal for equal arguments. Raises InputError: no such network, or no such stage of it.
    """
    for family in FAMILIES:
        if name in family.NAMES:
            return family.get(name, outputs)
    raise InputError(f"unknown network {name!r}; available: {', '.join(NAMES)}")


def strides(names: Pair[str], level: str) -> Pair[int]:
    """Pixels between positions of both stages of a level. Raises InputError; see `get`."""
    ends = zip(names, stages(level), strict=True)
    return Pair(*(dict(get(name, (stage,)).strides)[stage] for name, stage in ends))
