"""MB-PFM, ResNet18 to ResNet34 (Table VII, case 8), the fast schedule.

    python -m launch.train --config=configs/mb_pfm_r18_r34.py --data_dir=D --category=all \\
        --weights_dir=W --workdir=runs/r18_r34

Published with 200 epochs: 97.4 image AUROC, 97.0 pixel AUROC, 92.5 PRO on average over MVTec AD.
Expected time: about a third of `mb_pfm_r18_r50`. The score of the fast schedule is not measured.
"""

from pfm_jax.config import Config, MappingConfig, NetworksConfig


def get_config() -> Config:
    return Config(
        name="mb_pfm_r18_r34",
        networks=NetworksConfig(source="resnet18", target="resnet34"),
        mapping=MappingConfig(latent={"conv2_x": 50, "conv3_x": 100, "conv4_x": 200}),
    )
