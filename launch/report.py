"""Writes the report of a sweep, finished or not.

    python -m launch.report --workdir=runs/ablation

Puts report.html (one self-contained file), a CSV per table and cells.csv into the sweep's folder.
"""

from pathlib import Path

from absl import flags

from pfm_jax.sweeps.report import page

from .common import cli

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the sweep.", required=True)


def main() -> None:
    print(page.write(Path(WORKDIR.value)))


def entry() -> None:
    cli.run(main)


if __name__ == "__main__":
    entry()
