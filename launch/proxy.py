"""Measures a trained run on synthetic defects in its held-out normal images.

python -m launch.proxy --workdir=DIR --category=screw

Recipes are selected by this metric, never on test images. The run must have held-out images: train
with --config.data.held_out=0.2
"""

from absl import flags

from pfm_jax.runs.run import measure_proxy

from .common import cli, run_flags

flags.adopt_module_key_flags(run_flags)


def main() -> None:
    with run_flags.run() as run:
        found = measure_proxy(*run)
    rows = {**found["kinds"], "mean": found["image_auroc"], "PRO": found["pro_auc"]}
    for name, value in rows.items():
        print(f"{name:12} {100 * value:6.2f}")


def entry() -> None:
    cli.run(main)


if __name__ == "__main__":
    entry()
