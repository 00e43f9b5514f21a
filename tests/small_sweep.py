"""A sweep of small runs, as data for tests and as a config file for the command."""

from pfm_jax.config import SweepConfig
from pfm_jax.sweeps.plan import replaced
from tests.synthetic import small_config

CASES = {
    "pfm": {"mapping.latent": {"conv4_x": 8}, "mapping.directions": ("forward",)},
    "deep": {"mapping.latent": {"conv4_x": 8}},
    "two": {"mapping.latent": {"conv2_x": 8, "conv4_x": 8}},
    "whole": {},
    "random": {"networks.pretrained": False},
    "unknown": {"networks.source": "resnet34"},
}


def small_sweep() -> SweepConfig:
    return SweepConfig("small", replaced(small_config(), {"scoring.memory": False}), CASES)


def get_config() -> SweepConfig:
    return small_sweep()
