"""Measures speed beside a PyTorch reference on the same inputs and weights, in one run.

    pip install -e '.[bench]'
    python -m launch.benchmark --data_dir=D --weights_dir=W --output=benchmark.json

Takes about forty minutes on 2 otherwise idle cores. An empty `--category=` skips the training of
whole categories, which takes most of the time.
"""

import json
import os
from pathlib import Path

from absl import flags

from pfm_jax.system import files
from pfm_jax.types import InputError

from ..common import cli

DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of the categories.", required=True)
WEIGHTS_DIR = flags.DEFINE_string(
    "weights_dir", None, "Folder of weights; missing ones are random."
)
OUTPUT = flags.DEFINE_string("output", None, "JSON file to write.", required=True)
CATEGORY = flags.DEFINE_string("category", "screw", "Category to train.")
REPEATS = flags.DEFINE_integer("repeats", 7, "Turns of each contender.", lower_bound=1)
README = flags.DEFINE_string("readme", None, "Markdown file whose benchmark table is replaced.")


def main() -> None:
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # torch shares the memory
    try:
        from . import suite, table
    except ImportError as error:
        raise InputError(f"{error}: install the extra, pip install -e '.[bench]'") from error
    found = suite.measure(DATA_DIR.value, WEIGHTS_DIR.value, CATEGORY.value, REPEATS.value)
    files.write(Path(OUTPUT.value), (json.dumps(found, indent=2) + "\n").encode())
    if README.value:
        table.write(found, Path(README.value))
    print(table.markdown(found))


def entry() -> None:
    cli.run(main)


if __name__ == "__main__":
    entry()
