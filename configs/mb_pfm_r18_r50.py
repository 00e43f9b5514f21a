"""MB-PFM, ResNet18 to ResNet50 (Table VII, case 10), the fast schedule.

    python -m launch.train --config=configs/mb_pfm_r18_r50.py --data_dir=D --category=all \\
        --weights_dir=W --workdir=runs/r18_r50

Expected on MVTec AD's screw, seed 0, the original ResNet50 weights, in 4 min 11 s on 2 cores (28 s
features, 174 s training, 32 s evaluation): image AUROC 0.944, pixel AUROC 0.991, PRO 0.955; seeds
0 to 3: 0.935 with a deviation of 0.010.
Published, 200 epochs, mean of all categories: 0.970, 0.972, 0.930.
"""

from pfm_jax.config import Config, NetworksConfig


def get_config() -> Config:
    return Config(
        name="mb_pfm_r18_r50", networks=NetworksConfig(source="resnet18", target="resnet50")
    )
