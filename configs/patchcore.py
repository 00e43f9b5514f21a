"""PatchCore on ResNet50: nearest neighbours in a coreset of 1% (Roth et al., 2022).

    python -m launch.train --config=configs/patchcore.py --data_dir=D --category=all \\
        --weights_dir=W --workdir=runs/patchcore
"""

from pfm_jax.config import BASELINE_SCORING, Config, NetworksConfig
from pfm_jax.methods import PatchCore


def get_config() -> Config:
    return Config(
        name="patchcore",
        baseline=PatchCore(),
        networks=NetworksConfig(source="resnet50", target="resnet50"),
        scoring=BASELINE_SCORING,
    )
