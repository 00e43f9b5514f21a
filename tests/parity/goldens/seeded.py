"""Random inputs that the maker of the goldens and the tests both rebuild, so none is stored."""

from __future__ import annotations

import math
import zlib

import numpy as np

SEED = 1


def seeded_tensor(name: str, shape: tuple[int, ...], seed: int = SEED) -> np.ndarray:
    """A float32 tensor for the checkpoint entry `name`, whichever are drawn before it.

    The scales keep activations near one through deep networks, and the BatchNorm statistics are
    far from neutral, so that a network which ignores them is found out. The names of
    EfficientNet-Lite begin with an underscore: its scales are larger, so that ReLU6 has to cut.
    """
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    if name.endswith("running_var"):
        return rng.uniform(0.5, 1.5, shape).astype(np.float32)
    if name.endswith(("running_mean", "bias")):
        return (0.1 * rng.standard_normal(shape)).astype(np.float32)
    if name.endswith("weight") and len(shape) == 1:
        low, high = (0.5, 1.3) if name.startswith("_") else (0.3, 0.9)
        return rng.uniform(low, high, shape).astype(np.float32)
    if name.endswith("weight") and len(shape) == 2:
        return (rng.standard_normal(shape) / math.sqrt(shape[1])).astype(np.float32)
    if name.endswith(("gamma", "gamma_1", "gamma_2")):
        return rng.uniform(0.3, 0.9, shape).astype(np.float32)
    if name.endswith(("token", "pos_embed")):
        return (0.5 * rng.standard_normal(shape)).astype(np.float32)
    if name.endswith("weight") and len(shape) == 4:
        scale = math.sqrt(2 / math.prod(shape[1:]))
        return (scale * rng.standard_normal(shape)).astype(np.float32)
    raise ValueError(f"no rule for {name} of shape {shape}")


def seeded_images(shape: tuple[int, ...], seed: int = SEED) -> np.ndarray:
    """Standard normal float32: `[B, H, W, C]` images or features, `[B, H, W]` maps."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(np.float32)


def seeded_bytes(shape: tuple[int, ...], seed: int = SEED) -> np.ndarray:
    """Uniform uint8: an RGB image `[H, W, 3]`."""
    return np.random.default_rng([seed, *shape]).integers(0, 256, shape, np.uint8)


def seeded_mask(shape: tuple[int, int], seed: int = SEED) -> np.ndarray:
    """uint8 `[H, W]`, 0 or 255 at each pixel by itself, so that a shift by one pixel shows."""
    return np.where(seeded_bytes(shape, seed) > 127, 255, 0).astype(np.uint8)
