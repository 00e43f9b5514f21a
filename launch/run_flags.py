"""The flags that name a trained run and where its data and weights are now."""

from pathlib import Path

from absl import flags

from pfm_jax.run import Sources

WORKDIR = flags.DEFINE_string("workdir", None, "Where the run is kept.", required=True)
CATEGORY = flags.DEFINE_string("category", None, "The run's category.", required=True)
DATA_DIR = flags.DEFINE_string("data_dir", None, "Where the data is, if it has moved.")
WEIGHTS_DIR = flags.DEFINE_string("weights_dir", None, "Where the weights are, if they moved.")


def run() -> tuple[Path, str, Sources]:
    """Workdir, category and sources of the run."""
    return Path(WORKDIR.value), CATEGORY.value, Sources(DATA_DIR.value, WEIGHTS_DIR.value)
