"""Ten launches at once on one empty cache."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.synthetic import make_category

ROOT = Path(__file__).parents[2]
LOAD = """
import sys
from pfm_jax import datasets
from pfm_jax.datasets import mvtec_ad
print("ready", flush=True)
sys.stdin.read()  # until all are ready
found = datasets.load("mvtec_ad", sys.argv[1], "grid")
assert all(example.image for part in (found.train, found.test) for example in part)
print(found.fingerprint)
"""


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zip", "folder"])
def test_launches_at_once_share_a_cold_cache(kind: str, tmp_path: Path, cache: Path) -> None:
    make_category(tmp_path / "data" / "grid", good=40)
    source = tmp_path / "data"
    if kind == "zip":
        source = Path(shutil.make_archive(str(tmp_path / "data"), "zip", tmp_path / "data"))
    command = [sys.executable, "-c", LOAD, str(source)]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    started = [
        subprocess.Popen(command, cwd=ROOT, env=environment, text=True, **pipes) for _ in range(10)
    ]
    try:
        assert [process.stdout.readline() for process in started] == ["ready\n"] * 10
        for process in started:
            process.stdin.close()
            process.stdin = None  # communicate would flush it
        told = [process.communicate(timeout=300) for process in started]
    finally:
        for process in started:
            process.kill()
    assert [process.returncode for process in started] == [0] * 10, told
    assert len({fingerprint for fingerprint, _ in told}) == 1
    left = [path.name for path in cache.glob("*/*")]
    assert len(left) == (kind == "zip"), left
