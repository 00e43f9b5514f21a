"""MB-PFM as in the paper: ResNet34 to ResNet50, 200 epochs of whole images (Table VII, case 11).

    python -m launch.train --config=configs/mb_pfm_r34_r50.py --data_dir=D --category=all \\
        --weights_dir=W --workdir=runs/paper

Expected: 97.5 image AUROC, 97.3 pixel AUROC, 93.0 PRO on average over MVTec AD, as published.
The yardstick, not the default: many hours a category on a CPU. For the default on the same
networks, use mb_pfm_r18_r50 with --config.networks.source=resnet34
"""

from pfm_jax.config import (
    PAPER_SCORING,
    Config,
    DataConfig,
    MappingConfig,
    NetworksConfig,
    TrainConfig,
)


def get_config() -> Config:
    return Config(
        name="mb_pfm_r34_r50",
        data=DataConfig(held_out=0.0),
        networks=NetworksConfig(source="resnet34", target="resnet50"),
        mapping=MappingConfig(latent={"conv2_x": 200, "conv3_x": 400, "conv4_x": 900}),
        train=TrainConfig(
            sampling="images",
            batch_size=8,
            epochs=200,
            learning_rate={"conv2_x": 3e-4, "conv3_x": 3e-4, "conv4_x": 3e-4},
            warmup=0.0,
            schedule="constant",
            beta2=0.999,
            weight_decay=1e-5,
            precision="float32",
        ),
        scoring=PAPER_SCORING,
    )
