"""Exports runs to TensorBoard (extra tensorboard), finished or not.

    python -m launch.tensorboard --workdir=runs
    tensorboard --logdir=runs

Puts a folder `tensorboard` into every run below the workdir, from metrics.jsonl, metrics.json and
the gallery.
"""

from pfm_jax.runs import tensorboard
from pfm_jax.system import mirror

from .common import cli, paths

WORKDIR = paths.define("workdir", None, "Folder with runs below it.", required=True)


def main() -> None:
    with mirror.local_folder(WORKDIR.value, mirror.without_checkpoints) as workdir:
        for run in tensorboard.runs(workdir):
            written = tensorboard.write(run).relative_to(workdir)
            print(f"{WORKDIR.value.rstrip('/')}/{written}")


def entry() -> None:
    cli.run(main)


if __name__ == "__main__":
    entry()
