"""The shape of the house: imports go one way, files and launchers stay small, tools are content."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "pfm_jax"
ORDER = (
    *(
        "types",
        "config",
        "sharding",
        "files",
        "interrupts",
        "array_file",
        "calibration",
        "backbones",
        "torch_file",
        "weight_file",
    ),
    *(
        "pretrained",
        "images",
        "anomalies",
        "datasets",
        "features",
        "memory",
        "tiles",
        "cache",
        "layers",
    ),
    *("mapping", "sampling", "train", "loop", "scoring", "standard", "checkpoint"),
    *(
        "metrics",
        "intervals",
        "report",
        "gallery",
        "history",
        "record",
        "evaluate",
        "group",
        "run",
        "proxy",
    ),
    *("scorer", "detector", "predict", "artifact", "export", "serve", "plan", "sweep", "engines"),
    *("results", "published", "tables", "plots", "claims", "page", "tensorboard"),
)
# Lines at most; a family of networks, or a data set, has a file of its own.
LINES = {
    **{"types": 140, "config": 280, "files": 120, "torch_file": 180, "weight_file": 140},
    **{"pretrained": 180, "features": 110, "memory": 60, "cache": 180, "mapping": 210},
    **{"layers": 150, "standard": 110},
    **{"sampling": 160, "train": 160, "loop": 250, "scoring": 150, "checkpoint": 200},
    **{"metrics": 170, "report": 200, "evaluate": 200, "group": 230, "run": 220},
    **{"intervals": 110, "history": 60, "plan": 170, "sweep": 190, "engines": 120, "results": 170},
    **{
        "published": 140,
        "tables": 230,
        "plots": 190,
        "claims": 115,
        "page": 140,
        "tensorboard": 70,
    },
    **{
        "calibration": 90,
        "images": 220,
        "anomalies": 150,
        "tiles": 120,
        "gallery": 70,
        "scorer": 60,
        "proxy": 120,
    },
    **{
        "array_file": 90,
        "interrupts": 50,
        "sharding": 120,
        "record": 90,
        "detector": 240,
        "predict": 270,
        "artifact": 130,
        "export": 170,
    },
    **{"serve": 270},
    **{"backbones": 150, "datasets": 190},
}


def imports(path: Path) -> set[str]:
    """The modules of the package that a file imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, "imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name.split(".")[1] for name in found if name.startswith("pfm_jax.")}


def test_every_module_has_its_place() -> None:
    modules = {p.stem for p in PACKAGE.glob("*.py")} | {
        p.parent.name for p in PACKAGE.glob("*/*.py")
    }
    assert modules - {"__init__", "__pycache__"} == set(ORDER)
    assert all(f"`{module}`" in (PACKAGE / "__init__.py").read_text() for module in ORDER)


@pytest.mark.parametrize("module", ORDER)
def test_imports_go_one_way(module: str) -> None:
    files = [PACKAGE / f"{module}.py", *(PACKAGE / module).glob("*.py")]
    above = set(ORDER[: ORDER.index(module)])
    for path in files:
        if path.is_file():
            own = {module} if path.parent != PACKAGE else set()
            assert imports(path) <= above | own, path.name


@pytest.mark.parametrize("path", sorted(ROOT.glob("pfm_jax/**/*.py")), ids=lambda p: p.stem)
def test_files_and_functions_are_small(path: Path) -> None:
    source = path.read_text()
    module = path.stem if path.parent == PACKAGE else path.parent.name
    assert source.count("\n") <= LINES.get(module, 40)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            docstring = ast.get_docstring(node) or ""
            body = node.end_lineno - node.body[0].lineno + 1 - docstring.count("\n")
            assert body <= 40, f"{node.name} has {body} lines"


@pytest.mark.parametrize("path", sorted(ROOT.glob("launch/*.py")), ids=lambda p: p.stem)
def test_launchers_only_launch(path: Path) -> None:
    assert path.read_text().count("\n") <= 70


@pytest.mark.parametrize(
    "tool",
    [("ruff", "check"), ("ruff", "format", "--check"), ("mypy",)],
    ids=["lint", "format", "types"],
)
def test_tools_are_content(tool: tuple[str, ...]) -> None:
    done = subprocess.run([sys.executable, "-m", *tool], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
