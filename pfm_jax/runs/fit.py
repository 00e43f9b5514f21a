"""Training a detector from images alone, without a run's folder."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from pfm_jax import baselines, datasets
from pfm_jax.backbones.networks import Networks, load_networks
from pfm_jax.config import Config
from pfm_jax.datasets.inputs import Images, examples
from pfm_jax.datasets.lazy import ignoring
from pfm_jax.datasets.masks import to_ignore
from pfm_jax.inference.detector import Detector, Model, Record, assemble
from pfm_jax.recipes import validate
from pfm_jax.runs import learning
from pfm_jax.runs.programs import lowered_to_fit
from pfm_jax.system import compilation
from pfm_jax.training import loop, memory
from pfm_jax.training.checkpoint import versions
from pfm_jax.types import Example


def fit(
    images: Images,
    config: Config | None = None,
    weights_dir: str | None = None,
    normal: Images | None = None,
    ignored: np.ndarray | None = None,
) -> Detector:
    """Trains a detector on normal images.

    Args:
        images: normal images; see `datasets.inputs.Images`.
        config: the recipe; `Config()` if None. Of the images, or the `config.data.shots` drawn of
            them, a fraction `config.data.held_out` is kept from training and sets the threshold.
        weights_dir: where pretrained weights are; see `backbones.weights.load`.
        normal: other normal images to set the threshold by, instead of that fraction.
        ignored: `[h, w]`, stretched over each image; not 0 where that may look like anything.

    Compiled programs are kept on disk; see `system.compilation`. Raises InputError: images, recipe
    or weights that can't be used.
    """
    config = config or Config()
    validate(config)
    compilation.keep_programs()
    given = examples(images, config.data.value_range)  # once: a generator is consumed
    if ignored is not None:
        ignored = to_ignore(np.asarray(ignored), "ignored")
    given = ignoring(given, ignored)
    shots = datasets.draw_shots(given, config.data.shots, config.seed)
    train, held_out = datasets.hold_out(shots, config.data.held_out)
    if normal is not None:
        train, held_out = shots, examples(normal, config.data.value_range)
    networks, weights = load_networks(config.networks, config.levels, weights_dir)
    model = _model(networks, train, config, ignoring=ignored is not None)
    origin = {"weights": weights, "num_images": len(train), "versions": versions()}
    return make_detector(networks, model, config, held_out, origin, ignored)


def _model(
    networks: Networks, train: Sequence[Example], config: Config, *, ignoring: bool
) -> Model:
    if not learning.is_trained(config):
        return baselines.fit(networks, train, config)
    problem = learning.make_problem(config)
    with compilation.ahead(lowered_to_fit(config, networks, len(train), ignoring=ignoring)):
        cached = learning.build_cache(config, networks, train)
    fresh = learning.fresh_state(config, networks, len(train))
    (state,), _ = loop.train([fresh], cached, problem)
    candidates = cached.candidates
    kept = None if candidates is None else memory.fit(candidates)
    return learning.model_of(config, state, kept)


def make_detector(
    networks: Networks,
    model: Model,
    config: Config,
    held_out: Sequence[Example],
    origin: dict[str, Any],
    ignored: np.ndarray | None = None,
) -> Detector:
    """Makes a detector of what was trained, and scores held-out images."""
    record = Record(config, origin=origin)
    detector = assemble(networks, model, record, ignored)
    scores = detector.image_scores(held_out, "held out")
    return dataclasses.replace(detector, record=dataclasses.replace(record, normal_scores=scores))
