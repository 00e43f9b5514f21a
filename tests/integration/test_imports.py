"""Rooms import lazily: a part of the package does not load the libraries of another."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("pfm_jax", {"flax", "orbax", "optax", "tensorflow_datasets", "matplotlib"}),
        ("pfm_jax.datasets.mvtec_ad", {"tensorflow_datasets", "flax", "orbax", "matplotlib"}),
        ("pfm_jax.serving.batch", {"tensorflow_datasets", "matplotlib", "orbax"}),
    ],
)
def test_an_import_loads_only_what_it_needs(module: str, absent: set[str]) -> None:
    program = f"import sys, {module}; print(*{{name.split('.')[0] for name in sys.modules}})"
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "pfm_jax" in loaded and not loaded & absent
