"""Library, training and prediction need nothing that only Linux has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
WITHOUT_FCNTL = """
import sys
sys.modules["fcntl"] = None
import pytest
quiet = ["-q", "-p", "no:xdist", "-o", "addopts=", "-W", "ignore:only soft file lock"]
sys.exit(pytest.main([*quiet, *sys.argv[1:]]))
"""


def test_unit_tests_pass_without_fcntl() -> None:
    """The rooms that lock, write and walk folders, and a whole training."""
    chosen = [f"tests/unit/{name}" for name in ("system", "serving/test_batch.py", "runs")]
    command = [sys.executable, "-c", WITHOUT_FCNTL, *chosen]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
