"""A minute of what `python -m tests.fuzz` does for ten."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz import fuzz


@pytest.mark.filterwarnings("ignore")  # Pillow's, of odd files
def test_edited_files_are_read_or_refused(tmp_path: Path) -> None:
    found = fuzz(tmp_path, 0, 1500)
    assert sum(found.values()) >= 1500
    assert {name.split(":")[0] for name in found} == {
        *("image", "torch", "safetensors", "detector", "artifact")
    }
