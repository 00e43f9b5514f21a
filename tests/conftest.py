"""Strict JAX for every test, the places of real data and weights, and what several tests share."""

from __future__ import annotations

import os
from pathlib import Path

import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")


def _folder(variable: str) -> Path:
    place = os.environ.get(variable)
    if not place or not Path(place).is_dir():
        pytest.skip(f"{variable} does not name a folder")
    return Path(place)


@pytest.fixture
def real_data() -> Path:
    """A folder with MVTec AD categories, `screw` and `leather` among them."""
    return _folder("PFM_JAX_DATA")


@pytest.fixture
def real_weights() -> Path:
    """A folder with ImageNet weights of ResNet18 and ResNet50."""
    return _folder("PFM_JAX_WEIGHTS")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    place = tmp_path / "cache"
    monkeypatch.setenv("PFM_JAX_CACHE", str(place))
    return place
