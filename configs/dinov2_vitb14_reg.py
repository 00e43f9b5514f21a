"""DINOv2 ViT-B/14 with registers mapped to itself, early blocks to later ones, at 392 pixels.

    python -m launch.train --config=configs/dinov2_vitb14_reg.py --data_dir=D --category=all \\
        --workdir=runs/dinov2_vitb14_reg

The weights (Apache-2.0, 346 MB) are downloaded. Not measured yet: the recipe was run on random
weights only. Mapping blocks of this network to each other, both ways, is published at 98.8 image
AUROC on average over MVTec AD (Costanzino et al., 2025), with other heads and at another size.
For an accelerator: an image takes 0.2 TFLOP.
"""

from pfm_jax.config import (
    Config,
    DataConfig,
    MappingConfig,
    NetworksConfig,
    ScoringConfig,
    TrainConfig,
)
from pfm_jax.types import MEMORY

LEVELS = ("0-3:4-7", "4-7:8-11")


def get_config() -> Config:
    return Config(
        name="dinov2_vitb14_reg",
        data=DataConfig(image_size=392),
        networks=NetworksConfig(source="dinov2_vitb14_reg", target="dinov2_vitb14_reg"),
        mapping=MappingConfig(latent=dict.fromkeys(LEVELS, 700)),
        train=TrainConfig(
            positions=dict.fromkeys(LEVELS, 512),
            learning_rate=dict.fromkeys(LEVELS, 4e-3),
        ),
        # The finer level is divided by its own mean, the other by what is expected: where both are,
        # small defects are lost; where neither is, missing parts.
        scoring=ScoringConfig(
            relative={LEVELS[0]: 1.0}, weights={LEVELS[0]: 1.5, MEMORY: 1.0}, sharpness=12.0
        ),
    )
