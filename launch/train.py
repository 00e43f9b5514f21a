"""Trains and evaluates one category, or all of them.

    python -m launch.train --config=configs/mb_pfm_r18_r50.py --data_dir=D --category=screw \\
        --weights_dir=W --workdir=DIR

Any field of the recipe can be set: --config.train.steps=500 --config.seed=1
"""

from pathlib import Path

from absl import flags
from ml_collections import config_flags

from launch import cli, values
from pfm_jax import report
from pfm_jax.config import Config
from pfm_jax.run import Sources, train_categories

CONFIG = config_flags.DEFINE_config_file("config", help_string="The recipe, a file of configs/.")
DATA_DIR = flags.DEFINE_string("data_dir", None, "The folder of the categories, or an archive.")
CATEGORY = flags.DEFINE_string("category", None, "A category, or 'all'.", required=True)
WEIGHTS_DIR = flags.DEFINE_string("weights_dir", None, "A folder of pretrained weights.")
WORKDIR = flags.DEFINE_string("workdir", None, "Where runs are kept.", required=True)
SEEDS = flags.DEFINE_list("seeds", [], "Several at once, as 0,1,2; each gets WORKDIR/seed_N.")
flags.mark_flag_as_required("config")


def main() -> None:
    sources = Sources(DATA_DIR.value, WEIGHTS_DIR.value)
    config, workdir = values.recipe(CONFIG, Config), Path(WORKDIR.value)
    seeds = values.whole_numbers(SEEDS)
    results = train_categories(config, sources, CATEGORY.value, workdir, seeds)
    print(report.table(results))


if __name__ == "__main__":
    cli.run(main)
