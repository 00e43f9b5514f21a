"""The figure that choices are made by: of which images, and that it is the AUROC it claims."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from pfm_jax import metrics
from pfm_jax.config import Config
from pfm_jax.datasets import images
from pfm_jax.evaluation import proxy, synthetic
from pfm_jax.runs.run import load_dataset, load_detector, measure_proxy
from pfm_jax.runs.train import train_categories
from pfm_jax.sweeps.plan import replaced
from pfm_jax.types import InputError, Sources
from tests.synthetic import make_sources, small_config


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return make_sources(tmp_path_factory.mktemp("proxy"))


def config(held_out: float) -> Config:
    return replaced(small_config(), {"data.held_out": held_out})


def test_it_is_the_auroc_of_each_kind(sources: Sources, tmp_path: Path) -> None:
    train_categories(config(0.5), sources, "grid", tmp_path)
    found = measure_proxy(tmp_path, "grid", Sources())
    assert found == json.loads((tmp_path / "grid" / "proxy.json").read_text())
    held_out = load_dataset(config(0.5), "grid", sources).held_out
    examples = proxy.made_up(held_out)
    pictures = np.stack([images.decode_image(e, 64) for e in examples])
    scores, maps = load_detector(tmp_path, "grid").score(pictures)
    defects = np.array([e.defect for e in examples])
    for kind in synthetic.KINDS:
        chosen = (defects == "good") | (defects == kind)
        expected = roc_auc_score(defects[chosen] == kind, scores[chosen])
        assert found["kinds"][kind] == pytest.approx(expected)
    assert found["image_auroc"] == pytest.approx(np.mean(list(found["kinds"].values())))
    masks = images.masks(examples, 64)
    assert found["pro_auc"] == pytest.approx(metrics.pro_auc(np.stack(maps), masks), abs=1e-4)


def test_nothing_held_out_is_an_error(sources: Sources, tmp_path: Path) -> None:
    train_categories(config(0.0), sources, "grid", tmp_path)
    with pytest.raises(InputError, match="no held-out images: train with --config"):
        measure_proxy(tmp_path, "grid", Sources())
