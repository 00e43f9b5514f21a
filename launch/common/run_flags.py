"""Flags of a trained run and the current locations of its data and weights."""

from pathlib import Path

from absl import flags

from pfm_jax.config import Sources

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the runs.", required=True)
CATEGORY = flags.DEFINE_string("category", None, "Category of the run.", required=True)
DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of the data, if it has moved.")
WEIGHTS_DIR = flags.DEFINE_string("weights_dir", None, "Folder of the weights, if they have moved.")


def run() -> tuple[Path, str, Sources]:
    """Workdir, category and sources of the run."""
    return Path(WORKDIR.value), CATEGORY.value, Sources(DATA_DIR.value, WEIGHTS_DIR.value)
