"""The metrics of a trained run again, from its checkpoint alone.

python -m launch.evaluate --workdir=DIR --category=screw
"""

from absl import flags

from launch import cli, run_flags
from pfm_jax import report
from pfm_jax.run import evaluate_category

flags.adopt_module_key_flags(run_flags)


def main() -> None:
    workdir, category, sources = run_flags.run()
    print(report.table({category: evaluate_category(workdir, category, sources)}))


if __name__ == "__main__":
    cli.run(main)
