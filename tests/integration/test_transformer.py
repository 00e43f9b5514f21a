"""One vision transformer, block mapped to block: trained, saved, exported."""

from __future__ import annotations

from pathlib import Path

import numpy as np

import pfm_jax as pfm
from pfm_jax.config import Config, DataConfig, MappingConfig, NetworksConfig, TrainConfig
from pfm_jax.datasets.inputs import examples
from pfm_jax.inference import export
from pfm_jax.inference.calibration import Threshold
from tests.synthetic import make_weights, texture

VIT, LEVELS = "dinov2_vits14_reg", ("0:2", "1-2:3")
RECIPE = Config(
    data=DataConfig(image_size=56, held_out=0.5),
    networks=NetworksConfig(VIT, VIT),
    mapping=MappingConfig(dict.fromkeys(LEVELS, 8)),
    train=TrainConfig(
        positions=dict.fromkeys(LEVELS, 64),
        learning_rate=dict.fromkeys(LEVELS, 1e-2),
        steps=60,
    ),
)


def test_from_images_to_an_artefact(tmp_path: Path) -> None:
    weights = str(make_weights(tmp_path / "weights", VIT))
    good = [texture(seed, 56) for seed in range(8)]
    bad = [image.copy() for image in good]
    for image in bad:
        image[14:42, 14:42] = (230, 30, 30)
    detector = pfm.fit(good, RECIPE, weights)
    assert list(detector.record.origin["weights"]) == [VIT]
    scores, maps = detector.score(good + bad)
    assert scores[8:].min() > scores[:8].max()
    assert maps[0].shape == (56, 56)

    for networks in (True, False):
        detector.save(tmp_path / "detector.safetensors", networks=networks)
        loaded = pfm.load(tmp_path / "detector.safetensors", weights)
        np.testing.assert_array_equal(loaded.score(good + bad)[0], scores)

    exported = export.make(detector, Threshold(0.25, 0.05, 0.1, 32))
    assert export.check(detector, exported, examples(good + bad)) < 1e-5
