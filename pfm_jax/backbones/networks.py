"""The frozen pair of networks."""

from __future__ import annotations

import dataclasses

import jax

from pfm_jax.backbones import Backbone
from pfm_jax.backbones import weights as pretrained
from pfm_jax.config import NetworksConfig
from pfm_jax.system import devices
from pfm_jax.types import Pair, Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Network:
    """A backbone with its weights, which are the leaves; the architecture is static."""

    params: Params
    backbone: Backbone = dataclasses.field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Networks:
    """The two frozen networks.

    Attributes:
        source: the source network (SNN in the paper).
        target: the target network (TNN).
        neighbourhood: see `NetworksConfig`.
    """

    source: Network
    target: Network
    neighbourhood: int = dataclasses.field(default=1, metadata={"static": True})


def load_networks(
    config: NetworksConfig, weights_dir: str | None
) -> tuple[Networks, dict[str, str]]:
    """Loads the two networks onto every device.

    Args:
        config: their names, and whether they are pretrained.
        weights_dir: see `pretrained.load`.

    Returns:
        The networks, and the fingerprint of each one's weights by its name.

    Raises:
        InputError: no such network, or no weights of it.
    """
    names = Pair(config.source, config.target)
    if config.pretrained:
        loaded = [pretrained.load(name, weights_dir) for name in names]
    else:
        keys = jax.random.split(jax.random.key(config.seed))
        loaded = [pretrained.random(name, key) for name, key in zip(names, keys, strict=True)]
    params = devices.replicate(Pair(*(weights.params for weights in loaded)))
    source, target = (
        Network(p, weights.backbone) for p, weights in zip(params, loaded, strict=True)
    )
    fingerprints = {weights.backbone.name: weights.fingerprint for weights in loaded}
    return Networks(source, target, config.neighbourhood), fingerprints
