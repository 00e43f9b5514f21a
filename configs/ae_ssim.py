"""AE-SSIM: reconstruction of whole images at 128 pixels, 200 epochs (Bergmann et al., 2018).

python -m launch.train --config=configs/ae_ssim.py --data_dir=D --category=all --workdir=runs/ae

It sees no pretrained network: the one that is named is not used.
"""

from pfm_jax.config import PAPER_SCORING, Config, NetworksConfig, TrainConfig
from pfm_jax.methods import IMAGES, AeSsim


def get_config() -> Config:
    return Config(
        name="ae_ssim",
        baseline=AeSsim(),
        networks=NetworksConfig(source="resnet18", target="resnet18", pretrained=False),
        train=TrainConfig(
            sampling="images",
            batch_size=16,
            epochs=200,
            learning_rate={IMAGES: 1e-3},
            schedule="cosine",
            weight_decay=1e-5,
        ),
        scoring=PAPER_SCORING,
    )
