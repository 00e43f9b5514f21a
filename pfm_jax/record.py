"""What a run is and how it went: `run.json` in its folder, and `log.txt` of all that was said."""

from __future__ import annotations

import datetime
import json
import logging
import platform
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from pfm_jax import files, sharding
from pfm_jax.checkpoint import Provenance

LOG = "log.txt"


def write(folder: Path, provenance: Provenance, status: str, seconds: Mapping[str, float]) -> None:
    """Writes `run.json`.

    Args:
        folder: of the run.
        provenance: what it is made from.
        status: `"running"` (also of one that was killed) or `"finished"`.
        seconds: that each phase took so far.
    """
    about = {
        "status": status,
        "written": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": dict(seconds),
        "command": sys.argv,
        "git": git_state(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        **provenance.to_json(),
    }
    files.write(folder / "run.json", (json.dumps(about, indent=2) + "\n").encode())


def git_state() -> dict[str, str | bool] | None:
    """The commit of this package's checkout and whether files differ from it; None if it is no
    checkout.
    """
    found = []
    for command in (("rev-parse", "HEAD"), ("status", "--porcelain", "--untracked-files=no")):
        try:
            done = subprocess.run(
                ["git", "-C", str(Path(__file__).parent), *command],
                capture_output=True,
                text=True,
                check=True,
            )
        except (OSError, subprocess.CalledProcessError):
            return None
        found.append(done.stdout.strip())
    return {"commit": found[0], "changed": bool(found[1])}


@contextmanager
def logged(folder: Path) -> Iterator[None]:
    """Within the block what this package says is also appended to `log.txt`, errors included.

    Raises:
        InputError: there can be no such folder.
    """
    files.make(folder)
    if not sharding.is_first():
        yield
        return
    handler = logging.FileHandler(folder / LOG, encoding="utf-8", delay=True)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(module)s: %(message)s"))
    package = logging.getLogger("pfm_jax")
    package.addHandler(handler)
    try:
        yield
    except Exception as error:
        text = f"{type(error).__name__}: {error}"  # whoever catches it says it to the user
        handler.emit(package.makeRecord("pfm_jax", logging.ERROR, "", 0, text, (), None))
        raise
    finally:
        package.removeHandler(handler)
        handler.close()
