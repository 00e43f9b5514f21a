"""A sweep of small runs, as data for tests and as a config file for the command."""

from pfm_jax.config import SweepConfig
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
    return SweepConfig("small", small_config(), CASES)


def get_config() -> SweepConfig:
    return small_sweep()
