"""STFPM: a student ResNet18 learns ResNet18's features for 100 epochs (Wang et al., 2021).

    python -m launch.train --config=configs/stfpm.py --data_dir=D --category=all \\
        --weights_dir=W --workdir=runs/stfpm

Adam, as everything here, in place of their SGD. An hour a category on a CPU; there,
--config.train.epochs=10
"""

from pfm_jax.config import PAPER_SCORING, Config, NetworksConfig, TrainConfig
from pfm_jax.methods import IMAGES, Stfpm


def get_config() -> Config:
    return Config(
        name="stfpm",
        baseline=Stfpm(),
        networks=NetworksConfig(source="resnet18", target="resnet18"),
        train=TrainConfig(
            sampling="images",
            batch_size=32,
            epochs=100,
            learning_rate={IMAGES: 1e-3},
            schedule="cosine",
            weight_decay=1e-4,
        ),
        scoring=PAPER_SCORING,
    )
