"""ViT-Ti/16 mapped to itself, early blocks to middle ones, minus the class token: for a CPU, too.

    python -m launch.train --config=configs/vit_tiny.py --data_dir=D --category=all \\
        --weights_dir=W --workdir=runs/vit_tiny

Measured on five categories of MVTec AD: docs/experiments/transformers.md.
"""

from pfm_jax.config import Config, MappingConfig, NetworksConfig, ScoringConfig, TrainConfig
from pfm_jax.types import MEMORY

LEVELS = ("0-2-cls:3-5-cls", "1-2-cls:3-4-cls")


def get_config() -> Config:
    return Config(
        name="vit_tiny",
        networks=NetworksConfig(source="vit_tiny_patch16_224", target="vit_tiny_patch16_224"),
        mapping=MappingConfig(latent=dict.fromkeys(LEVELS, 300)),
        train=TrainConfig(
            positions=dict.fromkeys(LEVELS, 256),
            learning_rate=dict.fromkeys(LEVELS, 4e-3),
        ),
        # The finer level is divided by its own mean, the other by what is expected: where both are,
        # small defects are lost; where neither is, missing parts. Maps of 16 x 16 positions are
        # smooth already.
        scoring=ScoringConfig(
            relative={LEVELS[0]: 1.0},
            weights={LEVELS[0]: 1.75, MEMORY: 2.0},
            smoothing=1 / 112,
        ),
    )
