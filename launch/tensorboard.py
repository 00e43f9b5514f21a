"""Exports runs to TensorBoard (extra tensorboard), finished or not.

    python -m launch.tensorboard --workdir=runs
    tensorboard --logdir=runs

Puts a folder `tensorboard` into every run below the workdir, from metrics.jsonl, metrics.json and
the gallery.
"""

from pathlib import Path

from absl import flags

from pfm_jax.runs import tensorboard

from .common import cli

WORKDIR = flags.DEFINE_string("workdir", None, "Folder with runs below it.", required=True)


def main() -> None:
    for run in tensorboard.runs(Path(WORKDIR.value)):
        print(tensorboard.write(run))


def entry() -> None:
    cli.run(main)


if __name__ == "__main__":
    entry()
