"""One clear error for each kind of bad input, nothing executed, nothing lost; and what is fine."""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pfm_jax import datasets
from pfm_jax.datasets import images
from tests.bad_files import encoded
from tests.bad_inputs import CASES, HEADINGS, told
from tests.synthetic import make_category, texture

PAGE = Path(__file__).parents[2] / "docs" / "robustness.md"


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line_that_is_in_the_table(name: str) -> None:
    message = told(CASES[name])
    assert min(map(len, message.splitlines())) > 20
    assert ("\n" in message) == (name == "data: several faulty files")
    assert "object at 0x" not in message and "Traceback" not in message
    ours = message.split(" (")[0]  # the reason in brackets may be a library's own
    row = f"| {name} | " + ours.replace("|", "\\|").replace("\n", "<br>")
    (line,) = [line for line in PAGE.read_text().splitlines() if line.startswith(f"| {name} |")]
    assert line.startswith(row), "python -m tests.bad_inputs"


def test_the_page_has_these_lines_under_these_headings_and_no_others() -> None:
    page = PAGE.read_text()
    for heading, kinds in HEADINGS.items():
        section = page.split(f"\n### {heading}\n")[1].split("\n#")[0]
        names = re.findall(r"^\| (\w+: .*?) \| ", section, re.M)
        assert names == [name for name in CASES if name.split(":")[0] in kinds]
    assert {name.split(":")[0] for name in CASES} == {
        k for kinds in HEADINGS.values() for k in kinds
    }


def test_enough_kinds() -> None:
    assert len(CASES) >= 40


@pytest.mark.parametrize("kind", ["cmyk", "16_bit", "grey", "name", "suffix"])
def test_odd_but_fine(kind: str, tmp_path: Path) -> None:
    """Odd-looking good images are accepted."""
    root = make_category(tmp_path / "data" / "grid")
    path = root / "train" / "good" / "003.png"
    if kind == "cmyk":
        path.unlink()
        path = path.with_suffix(".jpg")
        Image.fromarray(texture(3)).convert("CMYK").save(path)
    elif kind == "16_bit":
        Image.fromarray(texture(3)[..., 0].astype(np.uint16) * 257).save(path)
    elif kind == "grey":
        Image.fromarray(texture(3)[..., 0]).save(path)
    elif kind == "name":
        odd = Path(os.fsdecode(os.fsencode(path.parent) + b"/caf\xe9 \xff.png"))
        path.rename(odd)
    else:
        path.write_bytes(encoded("jpeg"))  # a JPEG that is called PNG
    dataset = datasets.load("folder", tmp_path / "data", "grid")
    decoded = np.stack([images.decode_image(example, 64) for example in dataset.train])
    assert decoded.shape == (6, 64, 64, 3)
    assert decoded.std((1, 2, 3)).min() > 10
