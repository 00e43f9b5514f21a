"""ELPV: 2,624 electroluminescence images of solar cells, from the `elpv-dataset` package.

Each cell has a probability of being defective. Protocol: cells of probability 0 are good, split 3:1
into training and test by a fixed seed; cells of probability 1 are anomalies; 1/3 and 2/3 are left
out. No masks. (Deitsch et al., 2019; Buerhop-Lutz et al., 2018; CC BY-NC-SA 4.0.)
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

from pfm_jax.datasets.entries import Entry, Layout, dataset, drawn
from pfm_jax.types import Dataset, InputError

CATEGORY = "solar_cells"


def locate(data_dir: Path | None) -> Path:
    """Data folder of the installed package. Raises InputError if it is not installed."""
    spec = importlib.util.find_spec("elpv_dataset")
    if spec is None or spec.origin is None:
        raise InputError("the ELPV images are not installed; run: pip install elpv-dataset")
    return Path(spec.origin).parent / "data"


def categories(root: Path) -> list[str]:
    """The single category."""
    return [CATEGORY]


def load(root: Path, category: str, value_range: float = 0.0) -> Dataset:
    """Loads the solar cells."""
    with (root / "labels.csv").open() as lines:
        rows = [line.split() for line in lines if line.strip()]
    good = [root / path for path, probability, _ in rows if float(probability) == 0]
    bad = [root / path for path, probability, _ in rows if float(probability) == 1]
    chosen = drawn(len(good), len(good) // 4)
    train = [Entry(path) for i, path in enumerate(good) if i not in chosen]
    test = [Entry(path) for i, path in enumerate(good) if i in chosen]
    test += [Entry(path, (), 1, "defective") for path in bad]
    return dataset(Layout(root, train, test), category, value_range)
