"""A small run as a config file for the command; enough steps to be interrupted."""

from pfm_jax.config import Config
from pfm_jax.sweeps.plan import replaced
from tests.synthetic import small_config


def get_config() -> Config:
    return replaced(small_config(steps=400, checkpoint_every=50), {"data.held_out": 0.2})
