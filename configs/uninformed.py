"""ST: three students regress ResNet18's conv3_x for 100 epochs (Bergmann et al., 2020).

    python -m launch.train --config=configs/uninformed.py --data_dir=D --category=all \\
        --weights_dir=W --workdir=runs/uninformed

Their teacher was trained for patches; this one is the network as it is. Two hours a category on a
CPU; there, --config.train.epochs=10
"""

from pfm_jax.config import BASELINE_SCORING, Config, NetworksConfig, TrainConfig
from pfm_jax.methods import IMAGES, Uninformed


def get_config() -> Config:
    return Config(
        name="uninformed",
        baseline=Uninformed(),
        networks=NetworksConfig(source="resnet18", target="resnet18"),
        train=TrainConfig(
            sampling="images",
            batch_size=8,
            epochs=100,
            learning_rate={IMAGES: 1e-4},
            schedule="constant",
            weight_decay=1e-5,
        ),
        scoring=BASELINE_SCORING,
    )
