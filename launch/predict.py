"""Scores new images: a folder (recursively), a glob, or one file.

    python -m launch.predict --workdir=runs/r18_r50 --category=screw --images=FOLDER --output=OUT
    python -m launch.predict --artifact=screw.pfm --images='camera/**/*.png' --output=OUT --overlays

Writes OUT/scores.csv, one row per image, and OUT/defects.json, the regions above the threshold; the
same command resumes an interrupted one. An unreadable image gets a row with the reason, and the
exit code is 1.
"""

import sys
import time
from pathlib import Path

from absl import flags

from pfm_jax.datasets import decoding
from pfm_jax.serving.batch import KINDS, Options, predict

from .common import cli, detector_flags, paths

IMAGES = paths.define("images", None, "A folder, a glob, or a file.", required=True)
OUTPUT = paths.define("output", None, "Folder of the scores.", required=True)
MAPS = flags.DEFINE_bool("maps", False, "Also write anomaly maps, as float32 TIFF.")
MEGAPIXELS = flags.DEFINE_float("max_megapixels", 178, "Largest image, in MP.", lower_bound=0)
MASKS = flags.DEFINE_bool("masks", False, "Also write masks of the defects, as PNG.")
OVERLAYS = flags.DEFINE_bool("overlays", False, "Also write overlays, as PNG.")
flags.adopt_module_key_flags(detector_flags)


def main() -> None:
    decoding.allow_megapixels(MEGAPIXELS.value)
    scorer = detector_flags.scorer()
    threshold = detector_flags.threshold(scorer)
    print(threshold or "no threshold")
    start, output = time.perf_counter(), Path(OUTPUT.value)
    limit = threshold.value if threshold else None
    options = Options(MAPS.value, OVERLAYS.value, MASKS.value)
    counts, new = predict(scorer, IMAGES.value, output, limit, options)
    rate = new / (time.perf_counter() - start)
    summary = ", ".join(
        f"{counts[kind]} {kind}" for kind in KINDS if counts[kind] or kind != "undecided"
    )
    print(f"{summary}: {output}/scores.csv ({new} new, {rate:.1f} images per second)")
    sys.exit(1 if counts["unreadable"] else 0)


def entry() -> None:
    cli.run(main)


if __name__ == "__main__":
    entry()
