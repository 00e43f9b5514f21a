"""A trained detector as one file that needs jax alone, for CPU, CUDA and TPU.

    python -m launch.export --workdir=runs/r18_r50 --category=screw --output=screw.pfm

The file is scored against the detector on real images, the run's test images or --images, before it
is written. It holds the threshold of --false_positive_rate. The README shows how to load it.
"""

from pathlib import Path

from absl import flags

from launch import cli, detector_flags
from pfm_jax import export
from pfm_jax.datasets.loose import examples
from pfm_jax.run import Sources, examples_of
from pfm_jax.types import InputError

OUTPUT = flags.DEFINE_string("output", None, "The file to be.", required=True)
IMAGES = flags.DEFINE_string("images", None, "Real images to compare on; a few are taken.")
DATA_DIR = flags.DEFINE_string("data_dir", None, "Where the run's data is, if it has moved.")
FEW = 16
flags.adopt_module_key_flags(detector_flags)


def main() -> None:
    detector = detector_flags.detector()
    if isinstance(detector, Path):
        raise InputError(f"artifact={detector}: it is exported already")
    if IMAGES.value:
        found = examples(IMAGES.value)[:FEW]
    elif run := detector_flags.run():
        found = examples_of(*run, Sources(DATA_DIR.value))[:FEW]
    else:
        raise InputError("images is not set: a folder of real images to compare on")
    threshold = detector_flags.threshold(detector.scorer())
    output = Path(OUTPUT.value)
    worst = export.write(detector, threshold, found, output)
    size = output.stat().st_size / 2**20
    print(
        f"{output}: {size:.0f} MiB, {threshold}; differs by {worst:.1g} at most from the detector"
    )


if __name__ == "__main__":
    cli.run(main)
