"""The metrics of a trained run again, from its checkpoint alone.

python -m launch.evaluate --workdir=DIR --category=screw
"""

from pathlib import Path

from absl import flags

from launch import cli
from pfm_jax import report
from pfm_jax.run import Sources, evaluate_category

WORKDIR = flags.DEFINE_string("workdir", None, "Where the run is kept.", required=True)
CATEGORY = flags.DEFINE_string("category", None, "The run's category.", required=True)
DATA_DIR = flags.DEFINE_string("data_dir", None, "Where the data is, if it has moved.")
WEIGHTS_DIR = flags.DEFINE_string("weights_dir", None, "Where the weights are, if they moved.")


def main() -> None:
    sources = Sources(DATA_DIR.value, WEIGHTS_DIR.value)
    results = evaluate_category(Path(WORKDIR.value), CATEGORY.value, sources)
    print(report.table({CATEGORY.value: results}))


if __name__ == "__main__":
    cli.run(main)
