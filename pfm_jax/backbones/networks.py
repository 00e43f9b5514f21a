"""The frozen pair of networks."""

from __future__ import annotations

import dataclasses

import jax

from pfm_jax.backbones import Backbone, weights
from pfm_jax.config import NetworksConfig
from pfm_jax.system import devices
from pfm_jax.types import Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Network:
    """A backbone with its weights, which are the leaves; the architecture is static."""

    params: Params
    backbone: Backbone = dataclasses.field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Networks:
    """The frozen source (SNN in the paper) and target (TNN); see `NetworksConfig`."""

    source: Network
    target: Network
    neighbourhood: int = dataclasses.field(default=1, metadata={"static": True})


def load_networks(
    config: NetworksConfig, weights_dir: str | None
) -> tuple[Networks, dict[str, str]]:
    """Networks on every device, and the fingerprint of each one's weights by its name.

    Raises InputError; see `weights.load`.
    """
    names = (config.source, config.target)
    if config.pretrained:
        loaded = [weights.load(name, weights_dir) for name in names]
    else:
        keys = jax.random.split(jax.random.key(config.seed))
        loaded = [weights.random(name, key) for name, key in zip(names, keys, strict=True)]
    source, target = (Network(devices.replicate(one.params), one.backbone) for one in loaded)
    fingerprints = {one.backbone.name: one.fingerprint for one in loaded}
    return Networks(source, target, config.neighbourhood), fingerprints
