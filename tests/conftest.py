"""Strict JAX for every test, the places of real data and weights, and what several tests share."""

from __future__ import annotations

import os
from pathlib import Path

import jax
import pytest

jax.config.update("jax_num_cpu_devices", 8)  # fake ones; must come before any use
jax.config.update("jax_numpy_rank_promotion", "raise")


def _folder(variable: str, place: str) -> Path:
    if not place or not Path(place).is_dir():
        pytest.skip(f"{variable} does not name a folder")
    return Path(place)


WEIGHTS = os.environ.get("PFM_JAX_WEIGHTS", "")


@pytest.fixture
def real_data() -> Path:
    """A folder with MVTec AD categories, `screw` and `leather` among them."""
    return _folder("PFM_JAX_DATA", os.environ.get("PFM_JAX_DATA", ""))


@pytest.fixture
def real_weights() -> Path:
    """A folder with ImageNet weights of ResNet18 and ResNet50."""
    return _folder("PFM_JAX_WEIGHTS", WEIGHTS)


@pytest.fixture(scope="session", autouse=True)
def no_weights_by_chance() -> None:
    os.environ.pop("PFM_JAX_WEIGHTS", None)


@pytest.fixture(scope="session", autouse=True)
def compiled(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Programs that several tests, or the commands that they launch, compile are compiled once."""
    base = tmp_path_factory.getbasetemp()
    several = "PYTEST_XDIST_WORKER" in os.environ  # processes, each with a folder in one
    place = str((base.parent if several else base) / "compiled")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = place
    os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"
    jax.config.update("jax_compilation_cache_dir", place)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache folder of the test's own."""
    place = tmp_path / "cache"
    monkeypatch.setenv("PFM_JAX_CACHE", str(place))
    return place
