"""Trains and evaluates one category, or all of them.

    python -m launch.train --config=configs/mb_pfm_r18_r50.py --data_dir=D --category=screw \\
        --weights_dir=W --workdir=DIR

A recipe is a file or the name of one in the package: --config=mb_pfm_r18_r50. Flags override its
fields: --config.train.steps=500 --config.seed=1
"""

from absl import flags

from pfm_jax.config import Config
from pfm_jax.evaluation import figures
from pfm_jax.runs import record
from pfm_jax.runs.train import train_categories
from pfm_jax.system import mirror
from pfm_jax.types import Sources

from .common import cli, paths, recipe, values

CONFIG = recipe.define("Recipe, by name or path.")
DATA_DIR = paths.define("data_dir", None, "Folder of the categories, or an archive.")
CATEGORY = flags.DEFINE_string("category", None, "Category, or 'all'.", required=True)
WEIGHTS_DIR = paths.define("weights_dir", None, "Folder of pretrained weights.")
WORKDIR = paths.define("workdir", None, "Folder of the runs, or its URL.", required=True)
SEEDS = flags.DEFINE_list(
    "seeds", [], "Comma-separated seeds, trained together into WORKDIR/seed_N."
)
UNIFIED = flags.DEFINE_bool(
    "unified", False, "Train one set of heads on all categories, in WORKDIR/unified."
)


def main() -> None:
    sources = Sources(DATA_DIR.value, WEIGHTS_DIR.value)
    config, seeds = recipe.value(CONFIG, Config), values.whole_numbers(SEEDS)

    def wanted(name: str) -> bool:
        return CATEGORY.value == "all" or f"/{CATEGORY.value}/" in f"/{name}" or name == record.LOG

    with mirror.local_folder(WORKDIR.value, wanted) as workdir:
        results = train_categories(
            config, sources, CATEGORY.value, workdir, seeds, unified=UNIFIED.value
        )
    print(figures.table(results))


def entry() -> None:
    cli.run(main)


if __name__ == "__main__":
    entry()
