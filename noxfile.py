"""Checks, each in an environment of its own: `nox -s fast`; `nox --list` names them all."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nox

nox.options.default_venv_backend = "uv|virtualenv"
nox.options.reuse_existing_virtualenvs = True
nox.options.sessions = ["fast", "lint"]

UV = (sys.executable, "-m", "uv")
UNIT_TESTS = ("pytest", "tests/unit", "-m", "not slow")


@nox.session
def fast(session: nox.Session) -> None:
    """Unit tests, in about two minutes."""
    session.install("-e", ".[quickstart,test]")
    session.run(*UNIT_TESTS, *session.posargs)


@nox.session
def tests(session: nox.Session) -> None:
    """All tests; with PFM_JAX_DATA and PFM_JAX_WEIGHTS, also on real data and weights."""
    session.install("-e", ".[quickstart,test]")
    session.run("pytest", *session.posargs)


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types and the direction of imports."""
    session.install("-e", ".[dev,mlflow,serve,tensorboard,wandb]")
    session.run("ruff", "check")
    session.run("ruff", "format", "--check")
    session.run("mypy")
    session.run("lint-imports")


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation, with every warning an error."""
    session.install("-e", ".[docs]")
    session.run("mkdocs", "build", "--strict", f"--site-dir={session.create_tmp()}/site")


@nox.session
def notebook(session: nox.Session) -> None:
    """The quickstart notebook, executed from top to bottom."""
    session.install("-e", ".[docs,quickstart]")
    options = ("--to=notebook", "--execute", f"--output-dir={session.create_tmp()}")
    session.run("jupyter", "nbconvert", *options, "docs/notebooks/quickstart.ipynb")


@nox.session
def onnx(session: nox.Session) -> None:
    """Export to ONNX, whose converter needs an older Orbax than the newest."""
    session.install("-e", ".[onnx]", "pytest>=8,<10", "pytest-xdist>=3.6,<4", "beartype>=0.23,<1")
    session.run("pytest", "-n0", "tests/integration/test_onnx.py")


@nox.session(python=False)
def oldest(session: nox.Session) -> None:
    """Unit tests on the oldest Python, with the lowest release of each direct dependency."""
    _unit_tests(session, [">=3.11.4,<3.12"], "lowest-direct")


@nox.session(python=False)
def newest(session: nox.Session) -> None:
    """Unit tests on the newest Python that is found, with the newest releases."""
    _unit_tests(session, ["3.13", "3.12"], "highest")


def _unit_tests(session: nox.Session, versions: list[str], resolution: str) -> None:
    if not (interpreter := next(filter(None, map(_interpreter, versions)), None)):
        session.skip(f"no Python {' or '.join(versions)} on PATH or in ~/.pyenv/versions")
    place = Path(".nox", session.name).absolute()
    session.run(*UV, "venv", "-q", "--clear", f"--python={interpreter}", str(place), external=True)
    install = ("pip", "install", "-q", f"--python={place}", f"--resolution={resolution}")
    # The first starlette's test client asks for httpx.
    session.run(*UV, *install, "-e", ".[quickstart,test]", "httpx>=0.28", external=True)
    command = (f"{place}/bin/python", "-m", *UNIT_TESTS, "-o", "filterwarnings=default")
    env = {"PFM_JAX_DATA": "", "PFM_JAX_WEIGHTS": ""}
    session.run(*command, *session.posargs, env=env, external=True)


def _interpreter(version: str) -> str:
    """Path of a Python on PATH or among pyenv's; empty if there is none."""
    pyenv = map(str, Path.home().glob(".pyenv/versions/*/bin"))
    env = {**os.environ, "PATH": os.pathsep.join([os.environ["PATH"], *pyenv])}
    find = [*UV, "python", "find", "--no-python-downloads", "--system", version]
    return subprocess.run(find, env=env, capture_output=True, text=True, check=False).stdout.strip()
