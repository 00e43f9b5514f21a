"""How much the choices matter: c, normalised predictions, hard positions, and the schedule.

    python -m launch.sweep --config=configs/sensitivity.py --data_dir=D --weights_dir=W \\
        --categories=screw --seeds=0,1,2 --workdir=runs/sensitivity

R18-R50. `paper_schedule` takes many hours a category on a CPU; leave it out with
--cases=default,half_c,double_c,plain_prediction,uniform_positions
"""

from typing import Any

from configs import mb_pfm_r18_r50, mb_pfm_r34_r50
from pfm_jax.config import SweepConfig


def get_config() -> SweepConfig:
    base, paper = mb_pfm_r18_r50.get_config(), mb_pfm_r34_r50.get_config().train
    schedule = (
        "sampling",
        "batch_size",
        "epochs",
        "learning_rate",
        "warmup",
        "schedule",
        "beta2",
        "weight_decay",
    )
    cases: dict[str, dict[str, Any]] = {
        "default": {},
        "half_c": {"mapping.latent": {k: c // 2 for k, c in base.mapping.latent.items()}},
        "double_c": {"mapping.latent": {k: 2 * c for k, c in base.mapping.latent.items()}},
        "plain_prediction": {"mapping.normalize_prediction": False},
        "uniform_positions": {"train.candidates": 0},
        "paper_schedule": {f"train.{name}": getattr(paper, name) for name in schedule},
    }
    return SweepConfig(name="sensitivity", base=base, cases=cases)
