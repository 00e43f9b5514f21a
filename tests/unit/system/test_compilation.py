"""Programs that were left half-written are deleted, so that the cache works again."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

COMPILE = """
from pfm_jax.system.compilation import keep_programs
keep_programs()
import jax
jax.jit(lambda x: x * {})(1.0)
"""


def compiled(factor: int, cache: Path) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JAX_")}
    environment |= {"PFM_JAX_CACHE": str(cache), "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-W", "default", "-c", COMPILE.format(factor)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True)


def test_a_program_left_half_written_is_compiled_again_and_costs_no_other(tmp_path: Path) -> None:
    compiled(2, tmp_path)
    (folder,) = (tmp_path / "compiled").iterdir()
    programs = sorted(folder.glob("*-cache"))
    assert programs
    for program in programs:
        program.write_bytes(b"")
        program.with_name(program.name.removesuffix("-cache") + "-atime").unlink()
    assert "compilation cache" not in compiled(3, tmp_path).stderr
    assert "compilation cache" not in compiled(2, tmp_path).stderr
    assert set(programs) <= set(folder.glob("*-cache"))
    assert all(program.stat().st_size for program in programs)
