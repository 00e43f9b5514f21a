"""STFPM: a student learns a teacher's features at several stages (Wang et al., 2021)."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Key

from pfm_jax import backbones
from pfm_jax.backbones.networks import Network
from pfm_jax.baselines import learned, student
from pfm_jax.baselines.features import Found, Memory
from pfm_jax.baselines.student import Student
from pfm_jax.methods import IMAGES, Stfpm
from pfm_jax.model import scoring
from pfm_jax.model.features import activations, l2_normalize, normalized
from pfm_jax.model.layers import masked_sum
from pfm_jax.types import Batch, FeaturePyramid


@dataclasses.dataclass(frozen=True, slots=True)
class Imitation:
    """The objective: half the squared distance of the unit vectors of student and teacher, the mean
    of positions, summed over stages.

    Attributes:
        teacher: name of the network.
        size: side of the images.
    """

    stages: tuple[str, ...]
    teacher: str
    size: int

    def init(self, key: Key[Array, ""]) -> dict[str, Student]:
        """A fresh student."""
        return {IMAGES: student.init(key, self.stages)}

    def loss(
        self, params: dict[str, Student], batch: Batch, key: Key[Array, ""]
    ) -> tuple[Array, Any]:
        """Loss of a batch, and the student with new statistics; see `model.problem.Objective`."""
        del key
        pixels, flat = batch.features[IMAGES]
        mask, side = batch.mask[IMAGES], self.size
        found, updated = self.unit(params[IMAGES], pixels.reshape(-1, side, side, 3), mask)
        total, start = jnp.float32(0), 0
        for stage in self.stages:
            shape = found[stage].shape
            stop = start + math.prod(shape[1:])
            distances = half_squares(found[stage], flat[:, start:stop].reshape(shape))
            total += masked_sum(mask, distances.mean((1, 2))) / mask.sum()
            start = stop
        return total, ({IMAGES: total}, {IMAGES: updated})

    def unit(
        self, own: Student, images: Float[Array, "B H W 3"], mask: Array | None = None
    ) -> tuple[FeaturePyramid, Student]:
        """Unit vectors of the student's stages; see `student.apply`."""
        scaled = normalized(images, backbones.get(self.teacher, self.stages))
        found, updated = student.apply(own, scaled, mask)
        return {stage: l2_normalize(features) for stage, features in found.items()}, updated


def objective(method: Stfpm, network: str, size: int) -> Imitation:
    """The objective of a student of a network."""
    return Imitation(method.stages, network, size)


@functools.partial(jax.jit, static_argnames="method")
def targets(network: Network, images: Array, method: Stfpm) -> Float[Array, "B T"]:
    """The teacher's unit vectors at all stages, in a row, as float16."""
    found = activations(network, images)
    unit = (l2_normalize(found[stage]).reshape(images.shape[0], -1) for stage in method.stages)
    return jnp.concatenate([*unit], 1).astype(jnp.float16)


def maps(
    network: Network, memory: Memory, images: Array, method: Stfpm, _ignored: Array | None = None
) -> Found:
    """Product of the stages' distances of student and teacher, each at the images' size."""
    own = objective(method, network.backbone.name, images.shape[1])
    found, _ = own.unit(learned.restored(own, memory)[IMAGES], images.astype(jnp.float32))
    theirs, product = activations(network, images), jnp.float32(1)
    for stage in method.stages:
        distances = half_squares(found[stage], l2_normalize(theirs[stage]))
        product *= scoring.upsample(distances, *images.shape[1:3])
    return Found(product)


def half_squares(a: Float[Array, "B h w C"], b: Float[Array, "B h w C"]) -> Float[Array, "B h w"]:
    """Half the squared distance at each position."""
    return jnp.square(a - b).sum(-1) / 2
