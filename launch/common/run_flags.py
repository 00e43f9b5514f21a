"""Flags of a trained run and the current locations of its data and weights."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from absl import flags

from pfm_jax.system import mirror
from pfm_jax.types import Sources

from . import paths

WORKDIR = paths.define("workdir", None, "Folder of the runs.", required=True)
CATEGORY = flags.DEFINE_string("category", None, "Category of the run.", required=True)
DATA_DIR = paths.define("data_dir", None, "Folder of the data, if it has moved.")
WEIGHTS_DIR = paths.define("weights_dir", None, "Folder of the weights, if they have moved.")


@contextmanager
def run() -> Iterator[tuple[Path, str, Sources]]:
    """Workdir, category and sources of the run. Raises InputError."""

    def wanted(name: str) -> bool:
        return name.startswith(f"{CATEGORY.value}/") and mirror.without_checkpoints(name)

    with mirror.local_folder(WORKDIR.value, wanted) as workdir:
        yield workdir, CATEGORY.value, Sources(DATA_DIR.value, WEIGHTS_DIR.value)
