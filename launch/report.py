"""Writes the report of a sweep, finished or not.

    python -m launch.report --workdir=runs/ablation

Puts report.html (one self-contained file), a CSV per table and cells.csv into the sweep's folder.
"""

from pfm_jax.sweeps.report import page
from pfm_jax.system import mirror

from .common import cli, paths

WORKDIR = paths.define("workdir", None, "Folder of the sweep.", required=True)


def main() -> None:
    with mirror.local_folder(WORKDIR.value, mirror.without_checkpoints) as workdir:
        written = page.write(workdir)
    print(f"{WORKDIR.value.rstrip('/')}/{written.name}")


def entry() -> None:
    cli.run(main)


if __name__ == "__main__":
    entry()
