"""A small run as a config file for the command; enough steps to be interrupted.

It has no memory, which would be made after all that is interrupted.
"""

from pfm_jax.config import Config
from pfm_jax.sweeps.plan import replaced
from tests.synthetic import small_config


def get_config() -> Config:
    changes = {"data.held_out": 0.2, "scoring.memory": False}
    return replaced(small_config(steps=400, checkpoint_every=50), changes)
