"""The frozen networks: two, or one whose stages are mapped to each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable

import jax

from pfm_jax import backbones
from pfm_jax.backbones import weights
from pfm_jax.backbones.backbone import Backbone
from pfm_jax.config import NetworksConfig
from pfm_jax.system import devices
from pfm_jax.types import Pair, Params, stages


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Network:
    """A backbone with its weights, which are the leaves; the architecture is static."""

    params: Params
    backbone: Backbone = dataclasses.field(metadata={"static": True})


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Networks:
    """The frozen source (SNN in the paper) and target (TNN); see `NetworksConfig`.

    `target` is None where one network is both, and its stages are mapped to each other.
    """

    source: Network
    target: Network | None
    neighbourhood: int = dataclasses.field(default=1, metadata={"static": True})

    @property
    def pair(self) -> Pair[Network]:
        """Source and target, which may be the same."""
        return Pair(self.source, self.target or self.source)

    @property
    def outputs(self) -> list[tuple[str, list[str]]]:
        """Name and stages of each network, as `network_shapes` takes them."""
        used = [one.backbone for one in (self.source, self.target) if one]
        return [(one.name, list(dict(one.strides))) for one in used]


def network_shapes(outputs: list[tuple[str, list[str]]], neighbourhood: int) -> Networks:
    """Networks of shapes instead of arrays. Raises InputError: no such network or stage."""
    used = [backbones.get(name, tuple(some)) for name, some in outputs]
    source, *target = (Network(weights.shapes(one), one) for one in used)
    return Networks(source, target[0] if target else None, neighbourhood)


def stages_used(config: NetworksConfig, levels: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """Name of each network -> its stages in some levels."""
    used: dict[str, set[str]] = {config.source: set(), config.target: set()}
    for level in levels:
        for name, stage in zip((config.source, config.target), stages(level), strict=True):
            used[name].add(stage)
    return {name: tuple(sorted(some)) for name, some in used.items()}


def load_networks(
    config: NetworksConfig, levels: Iterable[str], weights_dir: str | None = None
) -> tuple[Networks, dict[str, str]]:
    """Networks with the stages of some levels, on every device; and the fingerprint of each one's
    weights by its name.

    Raises InputError; see `weights.load`.
    """
    wanted = stages_used(config, levels)
    if config.pretrained:
        loaded = [weights.load(name, weights_dir, some) for name, some in wanted.items()]
    else:
        keys = jax.random.split(jax.random.key(config.seed))
        loaded = [weights.random(n, key, wanted[n]) for n, key in zip(wanted, keys, strict=False)]
    both = [Network(devices.replicate(one.params), one.backbone) for one in loaded]
    fingerprints = {one.backbone.name: one.fingerprint for one in loaded}
    networks = Networks(both[0], both[1] if both[1:] else None, config.neighbourhood)
    return networks, fingerprints
