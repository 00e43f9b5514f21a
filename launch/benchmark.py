"""Speed beside a PyTorch reference on the same inputs and weights, in one run.

    pip install -e '.[bench]'
    python -m launch.benchmark --data_dir=D --weights_dir=W --output=benchmark.json

About half an hour on 2 cores; leave the machine alone meanwhile. `--category=` without a value
leaves out the training of whole categories (most of the time).
"""

import json
import tempfile
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags

from configs import mb_pfm_r18_r50, mb_pfm_r34_r50
from launch import cli
from pfm_jax import files
from pfm_jax.types import InputError

DATA_DIR = flags.DEFINE_string("data_dir", None, "The folder of the categories.", required=True)
WEIGHTS_DIR = flags.DEFINE_string("weights_dir", None, "A folder of weights; seeded where none.")
OUTPUT = flags.DEFINE_string("output", None, "The JSON file to write.", required=True)
CATEGORY = flags.DEFINE_string("category", "screw", "The category to train.")
REPEATS = flags.DEFINE_integer("repeats", 7, "Turns of each.")
README = flags.DEFINE_string("readme", None, "A README whose benchmark table is made anew.")


def main() -> None:
    try:
        import torch

        from launch.measure import category, machine, metrics, scoring, serving, table, training
        from tests.reference.bridge import complete_weights
    except ImportError as error:
        raise InputError(f"{error}: install the extra, pip install -e '.[bench]'") from error
    images = np.random.default_rng(0).integers(0, 256, (8, 256, 256, 3), np.uint8)
    configs = {"r34_r50": mb_pfm_r34_r50.get_config(), "r18_r50": mb_pfm_r18_r50.get_config()}
    names = ("resnet18", "resnet34", "resnet50")
    found: dict[str, Any] = {"machine": machine.description(), "torch": torch.__version__}
    with tempfile.TemporaryDirectory() as folder:
        (place := Path(folder) / "weights").mkdir()
        weights = str(complete_weights(WEIGHTS_DIR.value, names, place))
        found["scoring"] = {
            k: scoring.measure(config, weights, images, REPEATS.value)
            for k, config in configs.items()
        }
        pair = configs["r18_r50"]
        found["training"] = training.our_step(pair, weights, images)
        step = training.reference_step(pair, weights, images, 3)
        found["training"]["reference_step_seconds"] = step
        found |= metrics.measure()
        found["serving"] = serving.measure(pair, weights, Path(folder))
        jax.clear_caches()
        if CATEGORY.value:
            options = [f"--data_dir={DATA_DIR.value}", f"--category={CATEGORY.value}"]
            options += [f"--weights_dir={weights}", "--config=configs/mb_pfm_r18_r50.py"]
            found["category"] = category.measure(options, Path(folder) / "runs", step)
    found |= table.summary(found)
    files.write(Path(OUTPUT.value), (json.dumps(found, indent=2) + "\n").encode())
    if README.value:
        table.write(found, Path(README.value))
    print(table.markdown(found))


if __name__ == "__main__":
    cli.run(main)
