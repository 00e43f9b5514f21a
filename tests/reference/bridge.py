"""Our networks and heads as the PyTorch reference has them, and made-up ones where none are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from pfm_jax import pretrained
from pfm_jax.config import Config
from pfm_jax.train import TrainState
from pfm_jax.weight_file import find, read
from tests.reference.torch_pfm import LEVELS, Mapping, Reference
from tests.synthetic import make_weights

DIRECTIONS = {"forward": "mnn", "backward": "rmnn"}


def reference(config: Config, weights_dir: str, state: TrainState) -> Reference:
    """The reference with the networks in `weights_dir` and the heads of `state`."""
    names, states = [], []
    for name in (config.networks.source, config.networks.target):
        names.append(pretrained.load(name, weights_dir).backbone.name)
        tensors = read(find(names[-1], weights_dir))
        states.append({k: torch.tensor(np.asarray(v)) for k, v in tensors.items()})
    model = Reference(names[0], names[1], (states[0], states[1]), config.mapping.latent)
    for level in LEVELS:
        copy_heads(model.heads[level], state.params[level], state.batch_stats[level])
    return model


def copy_heads(head: Mapping, params: dict, batch_stats: dict) -> None:
    """Our heads of one level into the reference's."""
    with torch.no_grad():
        _copy(head.shared, params["shared"])
        for ours, theirs in DIRECTIONS.items():
            for part, kind in ((head.encoders, "encoders"), (head.decoders, "decoders")):
                own, stats = params[f"{kind}_{ours}"], batch_stats[f"{kind}_{ours}"]
                for index in range(sum("linear" in name for name in own)):
                    _copy(part[theirs][3 * index], own[f"linear_{index}"])
                    if f"norm_{index}" in own:
                        norm = part[theirs][3 * index + 1]
                        norm.weight.copy_(_tensor(own[f"norm_{index}"]["scale"]))
                        norm.bias.copy_(_tensor(own[f"norm_{index}"]["bias"]))
                        norm.running_mean.copy_(_tensor(stats[f"norm_{index}"]["mean"]))
                        norm.running_var.copy_(_tensor(stats[f"norm_{index}"]["var"]))


def _tensor(array: object) -> torch.Tensor:
    return torch.tensor(np.asarray(array))


def _copy(conv: torch.nn.Conv2d, linear: dict) -> None:
    conv.weight.copy_(_tensor(linear["kernel"]).T[:, :, None, None])
    conv.bias.copy_(_tensor(linear["bias"]))


def complete_weights(weights_dir: str | None, names: tuple[str, ...], folder: Path) -> Path:
    """A folder with all of `names`: links to what `weights_dir` has, seeded ones for the rest."""
    for name in names:
        own = (name, f"{name}_caffe")
        there = [p for p in sorted(Path(weights_dir or folder).iterdir()) if p.stem in own]
        for path in there:
            (folder / path.name).symlink_to(path.resolve())
        if not there:
            make_weights(folder, name)
    return folder
