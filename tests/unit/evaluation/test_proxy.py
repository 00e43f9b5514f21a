"""The images that a proxy is measured on."""

from __future__ import annotations

import numpy as np
import pytest

from pfm_jax.config import Config
from pfm_jax.datasets import images, inputs
from pfm_jax.evaluation import proxy, synthetic
from pfm_jax.runs.run import load_dataset
from pfm_jax.sweeps.plan import replaced
from pfm_jax.types import Sources
from tests.synthetic import make_sources, small_config

KINDS = len(synthetic.KINDS)


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    return make_sources(tmp_path_factory.mktemp("proxy"))


def config(held_out: float) -> Config:
    return replaced(small_config(), {"data.held_out": held_out})


def test_every_held_out_image_and_its_defects(sources: Sources) -> None:
    held_out = load_dataset(config(0.5), "grid", sources).held_out
    examples = proxy.made_up(held_out)
    assert len(held_out) == 3 and len(examples) == 3 * proxy.ORIENTATIONS * (1 + KINDS)
    first = examples[: 1 + KINDS]
    normal = images.decode_image(held_out[0], 64)
    np.testing.assert_array_equal(images.decode_image(first[0], 64), normal)
    assert [e.defect for e in first] == ["good", *synthetic.KINDS]
    assert [e.label for e in first] == [0, *[1] * KINDS]
    masks = images.masks(first, 64)
    assert not masks[0].any() and masks[1:].any((1, 2)).all()
    for example, mask in zip(first[1:], masks[1:], strict=True):
        difference = np.abs(images.decode_image(example, 64).astype(int) - normal).max(-1)
        np.testing.assert_array_equal(difference >= synthetic.VISIBLE_DIFFERENCE, mask)
    assert [e.image for e in proxy.made_up(held_out)[4:9]] == [e.image for e in examples[4:9]]
    assert len({e.path for e in examples}) == len(examples)
    pictures = {examples[i].image for i in range(0, len(examples), 1 + KINDS)}
    assert len(pictures) == 3 * proxy.ORIENTATIONS, "eight orientations of each, all different"


def test_many_images_count_once_and_the_first_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy, "MOST_IMAGES", 20)
    held_out = inputs.examples(np.zeros((30, 16, 16), np.uint8))
    assert len(proxy.made_up(held_out)) == 20 * (1 + KINDS)


def test_defects_lie_outside_the_ignored_part_and_nothing_is_turned(sources: Sources) -> None:
    held_out = load_dataset(config(0.5), "grid", sources).held_out
    ignored = np.zeros((64, 64), bool)
    ignored[:, :32] = True
    examples = proxy.made_up(held_out, ignored)
    assert len(examples) == 3 * (1 + KINDS)
    inside = [mask[ignored].sum() / mask.sum() for mask in images.masks(examples, 64) if mask.any()]
    assert len(inside) == 3 * KINDS and max(inside) <= 0.5
    everywhere = images.masks(proxy.made_up(held_out), 64)
    assert max(mask[ignored].sum() / mask.sum() for mask in everywhere if mask.any()) > 0.5
