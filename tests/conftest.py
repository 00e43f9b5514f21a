"""Strict JAX and checked shapes in every test, real data and weights, and what tests share."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import jaxtyping
import pytest

from tests import checker

if TYPE_CHECKING:
    from pfm_jax.inference.detector import Detector
    from pfm_jax.types import Sources

# Before the first import of pfm_jax.model: its functions check the shapes they are annotated with.
jaxtyping.install_import_hook(["pfm_jax.model", "pfm_jax.baselines"], f"{checker.__name__}.checked")

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


@pytest.fixture(scope="session")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Sources:
    """`grid`, with 40 good images, and weights for `small_config`."""
    from pfm_jax.types import Sources
    from tests.synthetic import make_category, make_weights

    place = tmp_path_factory.mktemp("sources")
    make_category(place / "data" / "grid", good=40)
    make_weights(place / "weights", "resnet18", "resnet18_caffe")
    return Sources(str(place / "data"), str(place / "weights"))


@pytest.fixture(scope="session")
def detector(sources: Sources) -> Detector:
    """Fitted by `plain_config`."""
    from pfm_jax.runs.fit import fit
    from tests.synthetic import plain_config

    images = Path(str(sources.data_dir), "grid", "train", "good")
    return fit(images, plain_config(), sources.weights_dir)
