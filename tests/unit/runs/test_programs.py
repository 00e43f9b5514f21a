"""Every recipe of heads fits together at its own size, by shapes: nothing is computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pfm_jax.backbones.networks import Networks, network_shapes, stages_used
from pfm_jax.config import Config
from pfm_jax.recipes import load_recipe
from pfm_jax.runs.programs import lowered_to_fit
from pfm_jax.types import ScoreMaps

FOLDER = Path(__file__).parents[3] / "configs"
FOUND = {path.stem: load_recipe(path.stem) for path in sorted(FOLDER.glob("[a-z]*.py"))}
HEADS = [k for k, v in FOUND.items() if isinstance(v, Config) and v.baseline is None]


def networks_of(config: Config) -> Networks:
    used = stages_used(config.networks, config.levels)
    outputs = [(name, list(some)) for name, some in used.items()]
    return network_shapes(outputs, config.networks.neighbourhood)


@pytest.mark.parametrize("name", HEADS)
def test_a_recipe_trains_and_scores(name: str) -> None:
    config: Any = FOUND[name]
    lowered = [one() for one in lowered_to_fit(config, networks_of(config), 16, ignoring=False)]
    outputs = [one.out_info for one in lowered]
    (found,) = (one for one in outputs if isinstance(one, ScoreMaps))
    side = config.data.image_size
    assert found.fused.shape == (8, side, side)
    assert found.levels.keys() == {*config.maps}
    trained, losses, _ = outputs[0]
    assert losses.keys() == trained.heads.keys() == {*config.levels}
