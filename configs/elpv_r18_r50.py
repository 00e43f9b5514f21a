"""Solar cells (ELPV), ResNet18 to ResNet50, the fast schedule.

    python -m launch.train --config=configs/elpv_r18_r50.py --category=all --weights_dir=W \\
        --workdir=runs/elpv_r18_r50

Expected with the original ResNet50 weights and --config.data.held_out=0: image AUROC 0.908. Size,
neighbourhood, levels, smoothing and standardisation were chosen by `python -m launch.proxy`, on
synthetic defects in held-out good cells.
"""

from pfm_jax.config import Config, DataConfig, MappingConfig, NetworksConfig, ScoringConfig


def get_config() -> Config:
    return Config(
        name="elpv_r18_r50",
        data=DataConfig(dataset="elpv", image_size=320),
        networks=NetworksConfig(source="resnet18", target="resnet50", neighbourhood=3),
        mapping=MappingConfig(latent={"conv3_x": 400, "conv4_x": 900}),
        scoring=ScoringConfig(smoothing=1 / 32, standardize=True),
    )
