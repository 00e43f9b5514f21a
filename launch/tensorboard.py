"""Runs as TensorBoard shows them (extra `tensorboard`).

    python -m launch.tensorboard --workdir=runs
    tensorboard --logdir=runs

Writes a folder `tensorboard` into every run below the workdir, from metrics.jsonl, metrics.json and
the gallery; also of a run that is still going on.
"""

from pathlib import Path

from absl import flags

from launch import cli
from pfm_jax import tensorboard

WORKDIR = flags.DEFINE_string("workdir", None, "A folder with runs below it.", required=True)


def main() -> None:
    for run in tensorboard.runs(Path(WORKDIR.value)):
        print(tensorboard.write(run))


if __name__ == "__main__":
    cli.run(main)
