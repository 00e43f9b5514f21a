"""The mapping beside the methods that others would use, on the same images and metrics.

    python -m launch.sweep --config=configs/methods.py --data_dir=D --weights_dir=W \\
        --categories=all --seeds=0,1,2 --workdir=runs/methods
    python -m launch.report --workdir=runs/methods

Each method has the networks, training and scoring of its own recipe: --config.base.data fields are
of all, other fields of the base of the mapping alone.
"""

from typing import Any

from pfm_jax.config import Config, NetworksConfig, SweepConfig
from pfm_jax.recipes import load_recipe

METHODS = ("patchcore", "spade", "padim", "cnn_dict", "stfpm", "uninformed", "ae_ssim", "vae")
FIELDS = ("baseline", "networks", "train", "scoring")


def get_config() -> SweepConfig:
    networks = NetworksConfig(source="resnet18", target="resnet50")
    cases: dict[str, dict[str, Any]] = {"mapping": {}}
    for name in METHODS:  # each as in its own recipe
        recipe = load_recipe(name)
        cases[name] = {field: getattr(recipe, field) for field in FIELDS}
    return SweepConfig(name="methods", base=Config(networks=networks), cases=cases)
