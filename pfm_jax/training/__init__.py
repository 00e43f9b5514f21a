"""Training: cached features of normal images in, trained heads out.

state = training.init_state(seed, channels, problem, extent)
state, losses = training.step(state, batch, problem)     # pure; vmap over seeds and categories
"""

from pfm_jax.training.cache import FeatureCache, build_cache
from pfm_jax.training.loop import train
from pfm_jax.training.step import TrainState, init_state, step

__all__ = ["FeatureCache", "TrainState", "build_cache", "init_state", "step", "train"]
