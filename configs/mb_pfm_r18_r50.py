"""ResNet18 to ResNet50, the default's levels, schedule and scoring.

    python -m launch.train --config=configs/mb_pfm_r18_r50.py --data_dir=D --category=all \\
        --weights_dir=W --workdir=runs/r18_r50

Expected on MVTec AD's screw, the original ResNet50 weights: image AUROC 0.990, pixel AUROC 0.995,
PRO 0.976; on bottle 1.000, 0.988, 0.963, in 200 to 220 s on 2 cores (13 s features, 165 to 193 s
training, 1 s memory, 16 s evaluation). These sets are among those that the default was chosen on:
docs/experiments/default.md.
"""

from pfm_jax.config import Config, NetworksConfig


def get_config() -> Config:
    return Config(
        name="mb_pfm_r18_r50", networks=NetworksConfig(source="resnet18", target="resnet50")
    )
