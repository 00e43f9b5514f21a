"""What a trained run is chosen by: made-up defects on its held-out normal images.

python -m launch.proxy --workdir=DIR --category=screw

The run is trained with --config.data.held_out=0.2; see "How the default is chosen" in README.md.
"""

from absl import flags

from launch import cli, run_flags
from pfm_jax.proxy import measure_run

flags.adopt_module_key_flags(run_flags)


def main() -> None:
    found = measure_run(*run_flags.run())
    rows = {**found["kinds"], "mean": found["image_auroc"], "PRO": found["pro_auc"]}
    for name, value in rows.items():
        print(f"{name:12} {100 * value:6.2f}")


if __name__ == "__main__":
    cli.run(main)
