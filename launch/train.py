"""Trains and evaluates one category, or all of them.

    python -m launch.train --config=configs/mb_pfm_r18_r50.py --data_dir=D --category=screw \\
        --weights_dir=W --workdir=DIR

A recipe is a file or the name of one in the package: --config=mb_pfm_r18_r50. Flags override its
fields: --config.train.steps=500 --config.seed=1
"""

from pathlib import Path

from absl import flags

from pfm_jax.config import Config, Sources
from pfm_jax.evaluation import figures
from pfm_jax.runs.train import train_categories

from .common import cli, recipe, values

CONFIG = recipe.define("Recipe, by name or path.")
DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of the categories, or an archive.")
CATEGORY = flags.DEFINE_string("category", None, "Category, or 'all'.", required=True)
WEIGHTS_DIR = flags.DEFINE_string("weights_dir", None, "Folder of pretrained weights.")
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the runs.", required=True)
SEEDS = flags.DEFINE_list(
    "seeds", [], "Comma-separated seeds, trained together into WORKDIR/seed_N."
)


def main() -> None:
    sources = Sources(DATA_DIR.value, WEIGHTS_DIR.value)
    config, workdir = recipe.value(CONFIG, Config), Path(WORKDIR.value)
    seeds = values.whole_numbers(SEEDS)
    results = train_categories(config, sources, CATEGORY.value, workdir, seeds)
    print(figures.table(results))


def entry() -> None:
    cli.run(main)


if __name__ == "__main__":
    entry()
