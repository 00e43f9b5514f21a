"""House rules: openings of docstrings, lengths of functions and files."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = [
    path
    for room in ("pfm_jax", "launch", "configs", "tests")
    for path in ROOT.glob(f"{room}/**/*.py")
]
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
OPENINGS = {"What", "Of", "That", "Where", "Which", "Those", "Who"}
MOST_LINES_OF_A_FUNCTION = 40


def most_lines(path: Path) -> float:
    place = path.relative_to(ROOT)
    if place.parts[0] in ("configs", "tests"):
        return float("inf")
    return 70 if place.parent == Path("launch") else 250


def faults(path: Path) -> Iterator[str]:
    text = path.read_text()
    if len(text.splitlines()) > most_lines(path):
        yield f"has {len(text.splitlines())} lines"
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, (*FUNCTIONS, ast.ClassDef, ast.Module)):
            continue
        name, body = getattr(node, "name", "the module"), node.body
        if docstring := ast.get_docstring(node):
            body = body[1:]
            if docstring.split()[0].strip(".,:;") in OPENINGS:
                yield f"{name}: its docstring opens with {docstring.split()[0]}"
        if isinstance(node, FUNCTIONS) and body and "tests" not in path.relative_to(ROOT).parts:
            lines = (body[-1].end_lineno or 0) - body[0].lineno + 1
            if lines > MOST_LINES_OF_A_FUNCTION:
                yield f"{name}: its body has {lines} lines"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short_and_docstrings_stand_alone(path: Path) -> None:
    assert not list(faults(path))


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
