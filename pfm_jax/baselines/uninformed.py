"""ST: error and variance of students that regress a teacher (Bergmann et al., 2020)."""

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
from pfm_jax.methods import IMAGES, Uninformed
from pfm_jax.model.features import activations, normalized
from pfm_jax.model.layers import Dense, Norm, apply_dense, apply_norm, init_dense, masked_sum
from pfm_jax.types import Batch


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Statistics:
    """Running mean and variance `[C]`, which are not learned."""

    mean: Array
    var: Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Ensemble:
    """Students and their last layers; statistics of descriptors, and of error and variance."""

    students: tuple[Student, ...]
    readouts: tuple[Dense, ...]
    descriptors: Statistics
    scores: Statistics


@dataclasses.dataclass(frozen=True, slots=True)
class Regression:
    """The objective: squared distance of each student and the standardised descriptors, the mean of
    positions and channels, summed over students.

    Attributes:
        teacher: name of the network.
        size: side of the images.
    """

    method: Uninformed
    teacher: str
    size: int

    def init(self, key: Key[Array, ""]) -> dict[str, Ensemble]:
        """Fresh students, which differ."""
        width = student.WIDTHS[self.method.stages[0]]
        keys = jax.random.split(key, (self.method.students, 2))
        students = tuple(student.init(own, self.method.stages) for own, _ in keys)
        readouts = tuple(init_dense(own, width, width) for _, own in keys)
        many, two = (Statistics(jnp.zeros(n), jnp.ones(n)) for n in (width, 2))
        return {IMAGES: Ensemble(students, readouts, many, two)}

    def loss(
        self, params: dict[str, Ensemble], batch: Batch, key: Key[Array, ""]
    ) -> tuple[Array, Any]:
        """Loss of a batch, and the ensemble with new statistics; see `model.problem.Objective`."""
        del key
        pixels, flat = batch.features[IMAGES]
        images, own = pixels.reshape(-1, self.size, self.size, 3), params[IMAGES]
        predictions, students = self._predict(own, images, batch.mask[IMAGES])
        mask = jnp.repeat(batch.mask[IMAGES], math.prod(predictions.shape[2:4]))
        rows = predictions.reshape(len(students), -1, predictions.shape[-1])
        targets, descriptors = _standardized(own.descriptors, flat.reshape(rows.shape[1:]), mask)
        distances = jnp.square(rows - targets[None]).mean(-1).sum(0)
        total = masked_sum(mask, distances) / mask.sum()
        _, scores = _standardized(own.scores, error_and_variance(rows, targets), mask)
        updated = Ensemble(students, own.readouts, descriptors, scores)
        return total, ({IMAGES: total}, {IMAGES: updated})

    def scores(self, own: Ensemble, images: Array, descriptors: Array) -> Float[Array, "B h w"]:
        """Error and variance of the students, each standardised, and their sum."""
        predictions, _ = self._predict(own, images, None)
        rows = predictions.reshape(len(own.students), -1, predictions.shape[-1])
        targets, _ = _standardized(own.descriptors, descriptors.reshape(rows.shape[1:]))
        found, _ = _standardized(own.scores, error_and_variance(rows, targets))
        return found.sum(-1).reshape(predictions.shape[1:4])

    def _predict(
        self, own: Ensemble, images: Array, mask: Array | None
    ) -> tuple[Float[Array, "M B h w C"], tuple[Student, ...]]:
        (stage,) = self.method.stages
        scaled = normalized(images, backbones.get(self.teacher, self.method.stages))
        found, updated = [], []
        for one, readout in zip(own.students, own.readouts, strict=True):
            features, after = student.apply(one, scaled, mask)
            found.append(apply_dense(readout, features[stage]))
            updated.append(after)
        return jnp.stack(found), tuple(updated)


def error_and_variance(
    predictions: Float[Array, "M P C"], targets: Float[Array, "P C"]
) -> Float[Array, "P 2"]:
    """Squared error of the students' mean, and their variance about it, summed over channels."""
    mean = predictions.mean(0)
    error = jnp.square(mean - targets).sum(-1)
    variance = jnp.square(predictions - mean[None]).sum(-1).mean(0)
    return jnp.stack([error, variance], -1)


def _standardized(
    own: Statistics, rows: Float[Array, "P C"], mask: Array | None = None
) -> tuple[Float[Array, "P C"], Statistics]:
    norm = Norm(jnp.ones_like(own.mean), jnp.zeros_like(own.mean), own.mean, own.var)
    found, after = apply_norm(norm, rows, mask)
    return found, Statistics(after.mean, after.var)


def objective(method: Uninformed, network: str, size: int) -> Regression:
    """The objective of students of a network."""
    return Regression(method, network, size)


@functools.partial(jax.jit, static_argnames="method")
def targets(network: Network, images: Array, method: Uninformed) -> Float[Array, "B T"]:
    """The teacher's features, in a row, as float16."""
    found = activations(network, images)[method.stages[0]]
    return found.reshape(images.shape[0], -1).astype(jnp.float16)


def maps(
    network: Network,
    memory: Memory,
    images: Array,
    method: Uninformed,
    _ignored: Array | None = None,
) -> Found:
    """The students' standardised error and variance; see `Regression.scores`."""
    own = objective(method, network.backbone.name, images.shape[1])
    held = learned.restored(own, memory)[IMAGES]
    descriptors = activations(network, images)[method.stages[0]]
    return Found(own.scores(held, images.astype(jnp.float32), descriptors))
