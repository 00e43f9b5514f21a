"""VAE: reconstruction of whole images at 128 pixels, 200 epochs (Kingma and Welling, 2014).

python -m launch.train --config=configs/vae.py --data_dir=D --category=all --workdir=runs/vae

It sees no pretrained network: the one that is named is not used.
"""

from pfm_jax.config import PAPER_SCORING, Config, NetworksConfig, TrainConfig
from pfm_jax.methods import IMAGES, Vae


def get_config() -> Config:
    return Config(
        name="vae",
        baseline=Vae(),
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
