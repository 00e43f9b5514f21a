"""CNN feature dictionary on ResNet18: patches of 16 pixels (Napoletano et al., 2018).

    python -m launch.train --config=configs/cnn_dict.py --data_dir=D --category=all \\
        --weights_dir=W --workdir=runs/cnn_dict
"""

from pfm_jax.config import BASELINE_SCORING, Config, NetworksConfig
from pfm_jax.methods import CnnDict


def get_config() -> Config:
    return Config(
        name="cnn_dict",
        baseline=CnnDict(),
        networks=NetworksConfig(source="resnet18", target="resnet18"),
        scoring=BASELINE_SCORING,
    )
