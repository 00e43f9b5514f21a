"""The main job on real images and weights from the package index, in a few minutes on a CPU.

    python -m launch.quickstart

Learns what good solar cells look like and finds the defective ones.
"""

from pathlib import Path

from absl import flags

from configs import quickstart
from launch import cli
from pfm_jax import report
from pfm_jax.run import Sources, train_categories

WORKDIR = flags.DEFINE_string("workdir", "runs/quickstart", "Where the run is kept.")


def main() -> None:
    workdir = Path(WORKDIR.value)
    results = train_categories(quickstart.get_config(), Sources(), "all", workdir)
    print(report.table(results))
    for category, metrics in results.items():
        print(f"image AUROC {metrics['image_auroc']:.3f}, see {workdir / category}/heatmaps.png")


if __name__ == "__main__":
    cli.run(main)
