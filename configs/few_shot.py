"""The default with 1, 2 and 4 normal images, drawn by the seed, and a quarter of its steps.

    python -m launch.sweep --config=configs/few_shot.py --data_dir=D --weights_dir=W \\
        --categories=all --seeds=0,1,2 --workdir=runs/few_shot
    python -m launch.report --workdir=runs/few_shot

Any recipe takes --config.data.shots=4; measured: docs/experiments/few-images.md.
"""

from pfm_jax.config import Config, NetworksConfig, SweepConfig, TrainConfig


def get_config() -> SweepConfig:
    networks = NetworksConfig(source="resnet18", target="resnet50")
    return SweepConfig(
        name="few_shot",
        base=Config(networks=networks, train=TrainConfig(steps=500)),
        cases={f"shots_{shots}": {"data.shots": shots} for shots in (1, 2, 4)},
    )
