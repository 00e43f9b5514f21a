"""SPADE on ResNet50: the 50 nearest images, then nearest positions (Cohen and Hoshen, 2020).

    python -m launch.train --config=configs/spade.py --data_dir=D --category=all \\
        --weights_dir=W --workdir=runs/spade
"""

from pfm_jax.config import BASELINE_SCORING, Config, NetworksConfig
from pfm_jax.methods import Spade


def get_config() -> Config:
    return Config(
        name="spade",
        baseline=Spade(),
        networks=NetworksConfig(source="resnet50", target="resnet50"),
        scoring=BASELINE_SCORING,
    )
