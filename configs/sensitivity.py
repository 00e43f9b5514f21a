"""Sensitivity to c, to normalised predictions, to the memory, to the scoring and to the schedule.

    python -m launch.sweep --config=configs/sensitivity.py --data_dir=D --weights_dir=W \\
        --categories=screw --seeds=0,1,2 --workdir=runs/sensitivity

R18-R50. `paper_schedule` takes many hours a category on a CPU; to skip it, add
--cases=default,half_c,double_c,plain_prediction,no_memory,paper_scoring
"""

from typing import Any

from pfm_jax.config import Config, SweepConfig
from pfm_jax.recipes import load_recipe


def get_config() -> SweepConfig:
    base, paper = load_recipe("mb_pfm_r18_r50"), load_recipe("mb_pfm_r34_r50")
    assert isinstance(base, Config) and isinstance(paper, Config)
    scoring = ("expected", "relative", "memory", "weights", "fusion", "smoothing", "sharpness")
    schedule = (
        "sampling",
        "batch_size",
        "epochs",
        "warmup",
        "schedule",
        "beta2",
        "weight_decay",
        "precision",
    )
    cases: dict[str, dict[str, Any]] = {
        "default": {},
        "half_c": {"mapping.latent": {k: c // 2 for k, c in base.mapping.latent.items()}},
        "double_c": {"mapping.latent": {k: 2 * c for k, c in base.mapping.latent.items()}},
        "plain_prediction": {"mapping.normalize_prediction": False},
        "no_memory": {"scoring.memory": False},
        "paper_scoring": {f"scoring.{name}": getattr(paper.scoring, name) for name in scoring},
        "paper_schedule": {
            "train.learning_rate": dict.fromkeys(base.levels, paper.train.learning_rate["conv4_x"]),
            **{f"train.{name}": getattr(paper.train, name) for name in schedule},
        },
    }
    return SweepConfig(name="sensitivity", base=base, cases=cases)
