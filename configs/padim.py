"""PaDiM on ResNet18: a Gaussian of 100 random channels a position (Defard et al., 2021).

    python -m launch.train --config=configs/padim.py --data_dir=D --category=all \\
        --weights_dir=W --workdir=runs/padim
"""

from pfm_jax.config import BASELINE_SCORING, Config, NetworksConfig
from pfm_jax.methods import Padim


def get_config() -> Config:
    return Config(
        name="padim",
        baseline=Padim(),
        networks=NetworksConfig(source="resnet18", target="resnet18"),
        scoring=BASELINE_SCORING,
    )
