"""Evaluates a trained run again, from the detector in its folder.

python -m launch.evaluate --workdir=DIR --category=screw
"""

from absl import flags

from pfm_jax.evaluation import figures
from pfm_jax.runs.run import evaluate_run

from .common import cli, run_flags

flags.adopt_module_key_flags(run_flags)


def main() -> None:
    with run_flags.run() as (workdir, category, sources):
        print(figures.table({category: evaluate_run(workdir, category, sources)}))


def entry() -> None:
    cli.run(main)


if __name__ == "__main__":
    entry()
