"""Table VII: its twelve cases, and the direction and level cases of R18-R50 with their control.

    python -m launch.sweep --config=configs/ablation.py --data_dir=D --weights_dir=W \\
        --categories=all --seeds=0,1,2 --workdir=runs/ablation
    python -m launch.report --workdir=runs/ablation

Cases that differ only in levels share one training, so a seed of a category costs eight runs:
R18-R34 and R18-R50 in two directions and in one, R34-R50, V16-V19, and the two controls. Any field
of the common recipe can be set: --config.base.train.steps=500
"""

from typing import Any

from pfm_jax.config import PAPER_SCORING, Config, DataConfig, SweepConfig
from pfm_jax.types import LEVELS

# Levels of cases 2 to 8, in both directions; case 1 is conv4_x in one.
LEVEL_CASES = {
    2: ("conv4_x",),
    3: ("conv3_x",),
    4: ("conv2_x",),
    5: ("conv3_x", "conv4_x"),
    6: ("conv2_x", "conv3_x"),
    7: ("conv2_x", "conv4_x"),
    8: LEVELS,
}
SMALL, LARGE, VGG = (50, 100, 200), (200, 400, 900), (200, 400, 400)


def case(
    source: str, target: str, latent: tuple[int, ...], levels: tuple[str, ...] = LEVELS
) -> dict[str, Any]:
    """A pair of networks at some levels, with c of Table II."""
    sizes = dict(zip(LEVELS, latent, strict=True))
    return {
        "networks.source": source,
        "networks.target": target,
        "mapping.latent": {level: sizes[level] for level in levels},
    }


def directions_and_levels(
    source: str, target: str, latent: tuple[int, ...]
) -> dict[int, dict[str, Any]]:
    """Cases 1 to 8, and the control (case 9), on a pair of networks."""
    cases = {1: case(source, target, latent, ("conv4_x",))}
    cases[1]["mapping.directions"] = ("forward",)
    for number, levels in LEVEL_CASES.items():
        cases[number] = case(source, target, latent, levels)
    cases[9] = {**case(source, target, latent), "networks.pretrained": False}
    return cases


def get_config() -> SweepConfig:
    cases = {
        f"case_{number}": changes
        for number, changes in directions_and_levels("resnet18", "resnet34", SMALL).items()
    }
    cases["case_10"] = case("resnet18", "resnet50", LARGE)
    cases["case_11"] = case("resnet34", "resnet50", LARGE)
    cases["case_12"] = case("vgg16_bn", "vgg19_bn", VGG)
    for number, changes in directions_and_levels("resnet18", "resnet50", LARGE).items():
        cases[f"r18_r50_{number}"] = changes
    # The paper trains on every image.
    base = Config(data=DataConfig(held_out=0.0), scoring=PAPER_SCORING)
    return SweepConfig(name="ablation", base=base, cases=cases)
