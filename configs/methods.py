"""The mapping beside the methods that others would use, on the same images and metrics.

    python -m launch.sweep --config=configs/methods.py --data_dir=D --weights_dir=W \\
        --categories=all --seeds=0,1,2 --workdir=runs/methods
    python -m launch.report --workdir=runs/methods
"""

from typing import Any

from pfm_jax.config import BASELINE_SCORING, Config, NetworksConfig, SweepConfig
from pfm_jax.methods import Baseline, CnnDict, Padim, PatchCore, Spade


def baseline(method: Baseline, network: str) -> dict[str, Any]:
    """A method on one network, at the settings of its own recipe."""
    return {
        "baseline": method,
        "networks": NetworksConfig(source=network, target=network),
        "scoring": BASELINE_SCORING,
    }


def get_config() -> SweepConfig:
    mapping = NetworksConfig(source="resnet18", target="resnet50")
    return SweepConfig(
        name="methods",
        base=Config(networks=mapping),
        cases={
            "mapping": {},
            "patchcore": baseline(PatchCore(), "resnet50"),
            "spade": baseline(Spade(), "resnet50"),
            "padim": baseline(Padim(), "resnet18"),
            "cnn_dict": baseline(CnnDict(), "resnet18"),
        },
    )
