"""Conversion of our networks and heads to the PyTorch reference; random weights if missing."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TypeVar

import jax
import numpy as np
import safetensors.numpy
import torch
from torch.utils.flop_counter import FlopCounterMode

from pfm_jax import backbones
from pfm_jax.backbones import weights
from pfm_jax.backbones.locate import find, read
from pfm_jax.config import Config
from pfm_jax.model.heads import Head, Heads
from pfm_jax.model.layers import Dense

from .torch_pfm import LEVELS, Mapping, Reference, score

T = TypeVar("T")

DIRECTIONS = {"forward": "mnn", "backward": "rmnn"}


def reference(config: Config, weights_dir: str, heads: Heads) -> Reference:
    """Creates the reference with the networks in `weights_dir` and our heads."""
    names, states = [], []
    for name in (config.networks.source, config.networks.target):
        names.append(weights.load(name, weights_dir).backbone.name)
        tensors = read(find(names[-1], weights_dir))
        states.append({k: torch.tensor(np.asarray(v)) for k, v in tensors.items()})
    model = Reference(names[0], names[1], (states[0], states[1]), config.mapping.latent)
    for level in LEVELS:
        copy_head(heads[level], model.heads[level])
    return model


def place(what: T) -> T:
    """Moves a model or a tensor to the device that JAX computes on, if torch has it."""
    shared = jax.default_backend() == "gpu" and torch.cuda.is_available()
    return what.to("cuda") if shared else what  # type: ignore[attr-defined,no-any-return]


def wait() -> None:
    """Waits for what torch computes on a GPU."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def operations(model: torch.nn.Module, images: torch.Tensor) -> int:
    """Floating-point operations of scoring images."""
    with FlopCounterMode(display=False) as counter:
        score(model, images)
    return counter.get_total_flops()


def copy_head(ours: Head, theirs: Mapping) -> None:
    """Copies our head of one level into the reference's."""
    with torch.no_grad():
        _copy(ours.shared, theirs.shared)
        for direction, name in DIRECTIONS.items():
            for layers, part in (
                (ours.encoders, theirs.encoders),
                (ours.decoders, theirs.decoders),
            ):
                for index, layer in enumerate(layers[direction]):
                    _copy(layer.dense, part[name][3 * index])
                    if layer.norm:
                        norm = part[name][3 * index + 1]
                        norm.weight.copy_(_tensor(layer.norm.scale))
                        norm.bias.copy_(_tensor(layer.norm.bias))
                        norm.running_mean.copy_(_tensor(layer.norm.mean))
                        norm.running_var.copy_(_tensor(layer.norm.var))


def _tensor(array: object) -> torch.Tensor:
    return torch.tensor(np.asarray(array))


def _copy(dense: Dense, conv: torch.nn.Conv2d) -> None:
    conv.weight.copy_(_tensor(dense.kernel).T[:, :, None, None])
    conv.bias.copy_(_tensor(dense.bias))


def complete_weights(weights_dir: str | None, names: tuple[str, ...], folder: Path) -> Path:
    """Creates a folder with all of `names`: links to `weights_dir`, random weights otherwise."""
    folder.mkdir()
    for name in names:
        own = (name, f"{name}_caffe")
        there = [p for p in sorted(Path(weights_dir or folder).iterdir()) if p.stem in own]
        for path in there:
            (folder / path.name).symlink_to(path.resolve())
        if not there:
            safetensors.numpy.save_file(_random_weights(name), folder / f"{name}.safetensors")
    return folder


def _random_weights(name: str) -> dict[str, np.ndarray]:
    """Weights of a ResNet, scaled so that activations neither vanish nor explode."""
    rng, tensors = np.random.default_rng(0), {}
    for key, shape in weights.expected(backbones.get(name)).items():
        scale = math.sqrt(2 / math.prod(shape[1:])) if len(shape) == 4 else 0.1
        tensors[key] = (scale * rng.standard_normal(shape)).astype(np.float32)
        if key.endswith("running_var"):
            tensors[key] = np.ones(shape, np.float32)
        elif len(shape) == 1 and key.endswith("weight"):
            tensors[key] += np.float32(0.6)
    return tensors
