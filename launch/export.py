"""Exports a trained detector as one file that needs jax alone, or as ONNX (extra onnx).

    python -m launch.export --workdir=runs/r18_r50 --category=screw --output=screw.pfm
    python -m launch.export --workdir=runs/r18_r50 --category=screw --output=screw.onnx

The exported program is first compared with the detector on real images: the run's test images, or
--images. The file holds the threshold of --false_positive_rate.
"""

from pathlib import Path

from absl import flags

from pfm_jax.datasets.inputs import examples
from pfm_jax.inference import export, onnx
from pfm_jax.runs.run import examples_of
from pfm_jax.types import InputError, Sources

from .common import cli, detector_flags, paths

OUTPUT = paths.define("output", None, "File to write (.onnx: as ONNX).", required=True)
IMAGES = paths.define("images", None, "Images to compare on; the first 16 are used.")
DATA_DIR = paths.define("data_dir", None, "Folder of the run's data, if it has moved.")
FEW = 16
flags.adopt_module_key_flags(detector_flags)


def main() -> None:
    detector = detector_flags.detector()
    if isinstance(detector, Path):
        raise InputError(f"artifact={detector}: already exported; give a run or a saved detector")
    with detector_flags.run() as run:
        if IMAGES.value:
            found = examples(IMAGES.value, detector.config.data.value_range)[:FEW]
        elif run:
            found = examples_of(*run, Sources(DATA_DIR.value))[:FEW]
        else:
            raise InputError("images is not set: give a folder of real images to compare on")
    threshold = detector_flags.threshold(detector.scorer())
    output = Path(OUTPUT.value)
    write = onnx.write if output.suffix == ".onnx" else export.write
    worst = write(detector, threshold, found, output)
    size = output.stat().st_size / 2**20
    limit = threshold or "no threshold"
    print(f"{output}: {size:.0f} MiB, {limit}; within {worst:.1g} of the detector")


def entry() -> None:
    cli.run(main)


if __name__ == "__main__":
    entry()
