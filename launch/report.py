"""The page and the tables of a sweep.

    python -m launch.report --workdir=runs/ablation

Writes report.html (one file, opens anywhere), a CSV for each table and cells.csv into the folder;
also of a sweep that is still going on.
"""

from pathlib import Path

from absl import flags

from launch import cli
from pfm_jax import page

WORKDIR = flags.DEFINE_string("workdir", None, "The sweep's folder.", required=True)


def main() -> None:
    print(page.write(Path(WORKDIR.value)))


if __name__ == "__main__":
    cli.run(main)
