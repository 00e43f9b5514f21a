"""Weight conversion: checkpoints in the key layout of their publishers to Flax backbones.

Missing, unexpected or misshapen tensors are errors.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from flax import traverse_util
from jax import Array

from pfm_jax import backbones
from pfm_jax.backbones import locate, vit_layout
from pfm_jax.backbones.backbone import Backbone
from pfm_jax.system import files
from pfm_jax.types import InputError, Params

MAX_LISTED_FAULTS = 8  # in one error

log = logging.getLogger(__name__)


class Weights(NamedTuple):
    """Backbone with its weights."""

    backbone: Backbone  # architecture of the file (`resnet50` may resolve to `resnet50_caffe`)
    params: Params  # Flax variables of `backbone.module`, float32
    path: Path | None  # source file; None for random weights
    fingerprint: str  # sha256 (hex) of the file, or the key of random weights


def load(
    name: str, weights_dir: str | None = None, outputs: tuple[str, ...] | None = None
) -> Weights:
    """Finds (see `locate`), reads, checks and converts the weights of the network called `name`.

    `outputs`: stages that it shall have, all if None.
    Raises InputError: no such network or stage, no file, or a file of another network.
    """
    backbones.get(name, outputs)
    path = locate.find(name, weights_dir)
    style = "_caffe" if path.stem.startswith(f"{name}_caffe") else ""
    backbone = backbones.get(name + style, outputs)
    log.info("%s: weights of %s from %s", name, backbone.name, path)
    params = convert(backbone, locate.read(path), path)
    return Weights(backbone, params, path, hashlib.sha256(path.read_bytes()).hexdigest())


def random(name: str, key: Array, outputs: tuple[str, ...] | None = None) -> Weights:
    """Network with kernels drawn as by He et al. (2015, fan-out; torchvision's ResNets), scales 1,
    biases 0, tokens and position embeddings small.

    What is drawn for an array does not depend on `outputs`. Raises InputError; see `load`.
    """
    backbone = backbones.get(name, outputs)
    numbers = {path: n for n, path in enumerate(sorted(_flax_shapes(backbones.get(name))))}
    params = {
        path: _initial(path[-1])(jax.random.fold_in(key, numbers[path]), leaf.shape)
        for path, leaf in _flax_shapes(backbone).items()
    }
    drawn = f"random, key {jax.random.key_data(key).tolist()}"
    return Weights(backbone, {"params": traverse_util.unflatten_dict(params)}, None, drawn)


def _initial(leaf: str) -> Callable[[Array, tuple[int, ...]], Array]:
    initializers = jax.nn.initializers
    if leaf == "kernel":
        return initializers.variance_scaling(2.0, "fan_out", "normal")
    if leaf == "rope_periods":
        return lambda _, shape: jnp.asarray(vit_layout.periods(4 * shape[0]))
    if leaf == "bias":
        return initializers.zeros
    ones = leaf == "scale" or leaf.endswith("gamma")
    return initializers.ones if ones else initializers.normal(0.02)


def shapes(backbone: Backbone) -> Params:
    """Shapes of the Flax variables of `backbone.module`."""
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    return jax.eval_shape(lambda x: backbone.module.init(jax.random.key(0), x), images)


def _flax_shapes(backbone: Backbone) -> dict[tuple[str, ...], jax.ShapeDtypeStruct]:
    return traverse_util.flatten_dict(shapes(backbone)["params"])


def expected(backbone: Backbone) -> dict[str, tuple[int, ...]]:
    """Required tensors: checkpoint name -> shape, in torch's axis order."""
    found: dict[str, tuple[int, ...]] = {}
    for path, leaf in _flax_shapes(backbone).items():
        found |= backbone.layout.sources(path, leaf.shape)
    return found


def select(backbone: Backbone, tensors: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """Required tensors as float32. Raises InputError: missing, unknown, misshapen or non-finite."""
    wanted = expected(backbone)
    try:
        tensors = backbone.layout.canonical(tensors)
    except (ValueError, IndexError, TypeError) as error:  # shapes that no layout has
        raise InputError(f"{path}: not the weights of {backbone.name}: {error}") from error
    faults = [f"missing {key} {shape}" for key, shape in wanted.items() if key not in tensors]
    for key, tensor in tensors.items():
        if key not in wanted:
            if not backbone.layout.unused.match(key) and not key.endswith("num_batches_tracked"):
                faults.append(f"unknown {key} {tensor.shape}")
        elif tensor.shape != wanted[key]:
            faults.append(f"{key} is {tensor.shape}, not {wanted[key]}")
        elif not _is_finite(tensor):
            faults.append(f"{key} has entries that are not finite real numbers ({tensor.dtype})")
    if faults:
        more = len(faults) - MAX_LISTED_FAULTS
        faults[MAX_LISTED_FAULTS:] = [f"and {more} more"] if more > 0 else []
        raise InputError(f"{path}: not the weights of {backbone.name}: {'; '.join(faults)}")
    return {key: np.asarray(tensors[key], np.float32) for key in wanted}


def _is_finite(tensor: np.ndarray) -> bool:
    real = jnp.issubdtype(tensor.dtype, jnp.floating)  # NumPy's does not know bfloat16
    return bool(real and np.isfinite(tensor.astype(np.float32, copy=False)).all())


def convert(backbone: Backbone, tensors: dict[str, np.ndarray], path: Path) -> Params:
    """Converts checkpoint tensors to Flax variables. Raises InputError; see `select`."""
    tensors = select(backbone, tensors, path)
    params = {
        place: backbone.layout.value(place, tensors).astype(np.float32)
        for place in _flax_shapes(backbone)
    }
    return {"params": traverse_util.unflatten_dict(params)}


def port(name: str, source: Path, target: Path) -> int:
    """Writes the tensors that the network needs to `target` (`.safetensors`); returns their number.

    Raises InputError: `source` holds another network, or `target` can't be written.
    """
    if target.suffix != ".safetensors":
        raise InputError(f"output={target}: must end in .safetensors")
    tensors = select(backbones.get(name), locate.read(source), source)
    files.write(target, safetensors.numpy.save(tensors))
    return len(tensors)
