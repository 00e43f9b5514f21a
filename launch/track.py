"""Exports runs to TensorBoard, Weights & Biases or MLflow, finished or not.

    python -m launch.track --workdir=runs
    tensorboard --logdir=runs
    python -m launch.track --workdir=runs --tracker=wandb --project=screws

Reads metrics.jsonl, metrics.json and the gallery of every run below the workdir. Each tracker is an
extra of its own name. Weights & Biases and MLflow get a new run at each export.
"""

from pathlib import PurePosixPath

from absl import flags

from pfm_jax.runs import trackers
from pfm_jax.system import mirror

from .common import cli, paths

WORKDIR = paths.define("workdir", None, "Folder with runs below it.", required=True)
TRACKER = flags.DEFINE_enum("tracker", "tensorboard", [*trackers.TRACKERS], "Tracker to write to.")
PROJECT = flags.DEFINE_string("project", "pfm_jax", "Project or experiment, unless TensorBoard's.")


def main() -> None:
    with mirror.local_folder(WORKDIR.value, mirror.without_checkpoints) as workdir:
        for run in trackers.runs(workdir):
            name = (PurePosixPath(WORKDIR.value) / run.relative_to(workdir).as_posix()).as_posix()
            trackers.export(run, TRACKER.value, PROJECT.value, name)
            print(f"{name}: written to {TRACKER.value}")


def entry() -> None:
    cli.run(main)


if __name__ == "__main__":
    entry()
