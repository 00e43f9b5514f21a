"""What a trained run is chosen by: made-up defects on its held-out normal images.

python -m launch.proxy --workdir=DIR --category=screw

The run is trained with --config.data.held_out=0.2; see "How the default is chosen" in README.md.
"""

from pathlib import Path

from absl import flags

from launch import cli
from pfm_jax.proxy import measure_run
from pfm_jax.run import Sources

WORKDIR = flags.DEFINE_string("workdir", None, "Where the run is kept.", required=True)
CATEGORY = flags.DEFINE_string("category", None, "The run's category.", required=True)
DATA_DIR = flags.DEFINE_string("data_dir", None, "Where the data is, if it has moved.")
WEIGHTS_DIR = flags.DEFINE_string("weights_dir", None, "Where the weights are, if they moved.")


def main() -> None:
    sources = Sources(DATA_DIR.value, WEIGHTS_DIR.value)
    found = measure_run(Path(WORKDIR.value), CATEGORY.value, sources)
    rows = {**found["kinds"], "mean": found["image_auroc"], "PRO": found["pro_auc"]}
    for name, value in rows.items():
        print(f"{name:12} {100 * value:6.2f}")


if __name__ == "__main__":
    cli.run(main)
