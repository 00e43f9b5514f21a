"""Categories from end to end: data and weights found, runs trained, results written."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax

from pfm_jax import datasets, features, files, pretrained, record, sharding, standard
from pfm_jax.checkpoint import Checkpoints, Provenance, check_same_run, versions
from pfm_jax.config import Config, validate
from pfm_jax.evaluate import evaluate
from pfm_jax.features import Networks
from pfm_jax.files import cache_dir
from pfm_jax.group import Run, fresh_state, groups, seconds_so_far, total_steps, train_group
from pfm_jax.train import TrainState
from pfm_jax.types import Dataset, Example, InputError

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class Sources:
    """Where things are.

    Attributes:
        data_dir: the folder of the categories, or an archive; None for a packaged data set.
        weights_dir: a folder of weights; None for the other places of `weight_file`.
    """

    data_dir: str | None = None
    weights_dir: str | None = None

    @property
    def data_path(self) -> Path | None:
        """`data_dir` as a path."""
        return Path(self.data_dir) if self.data_dir else None

    def resolved(self) -> Sources:
        """The same as absolute paths, `$PFM_JAX_WEIGHTS` looked up: good anywhere, at any time."""
        weights_dir = self.weights_dir or os.environ.get("PFM_JAX_WEIGHTS")
        places = (os.path.abspath(p) if p else None for p in (self.data_dir, weights_dir))
        return Sources(*places)


def load_networks(config: Config, sources: Sources) -> tuple[Networks, dict[str, str]]:
    """The two networks of a recipe and the fingerprint of each one's weights. Raises InputError."""
    names = config.networks.source, config.networks.target
    if config.networks.pretrained:
        loaded = [pretrained.load(name, sources.weights_dir) for name in names]
    else:
        keys = jax.random.split(jax.random.key(config.networks.seed))
        loaded = [pretrained.random(name, key) for name, key in zip(names, keys, strict=True)]
    networks = features.pair(loaded[0], loaded[1], config.networks.neighbourhood)
    return networks, {w.backbone.name: w.fingerprint for w in loaded}


def load_dataset(config: Config, category: str, sources: Sources) -> Dataset:
    """A category with the part of its normal images that a recipe holds out. Raises InputError."""
    place = config.data.dataset, sources.data_path, category, cache_dir()
    if sharding.is_first():  # what it prepares in the cache the others find there
        found = datasets.load(*place)
    sharding.wait("data")
    if not sharding.is_first():
        found = datasets.load(*place)
    train, held_out = datasets.hold_out(found.train, config.data.held_out)
    standard.check(config, len(train), f"{category}: ")
    return dataclasses.replace(found, train=train, held_out=held_out)


def train_categories(
    config: Config,
    sources: Sources,
    category: str,
    workdir: Path,
    seeds: Sequence[int] = (),
) -> dict[str, dict[str, Any]]:
    """Trains and evaluates one category, or all that are found if `category` is `"all"`.

    All data sets are looked through before the first is trained on. A run that `workdir` holds
    already goes on from its last checkpoint; if it is at its end, it is evaluated again. Runs
    train together as far as memory goes.

    Args:
        config: the recipe.
        sources: where data and weights are.
        category: see above.
        workdir: each run gets the folder `category` in it.
        seeds: instead of the recipe's one; each run's folder is then `seed_N/category`.

    Returns:
        The folder of each run in `workdir` -> what its `metrics.json` holds.

    Raises:
        InputError: a recipe, data, weights or a workdir that can't be used.
    """
    configs = {f"seed_{seed}": dataclasses.replace(config, seed=seed) for seed in seeds}
    for one in (config, *configs.values()):
        validate(one)
    sources = sources.resolved()
    chosen = datasets.categories(config.data.dataset, sources.data_path, category, cache_dir())
    networks, weights = load_networks(config, sources)
    loaded = {n: load_dataset(config, n, sources) for n in chosen}
    runs = [
        Run(provenance(one, name, dataset, weights, sources), dataset, workdir / place / name)
        for name, dataset in loaded.items()
        for place, one in (configs or {"": config}).items()
    ]
    results: dict[Path, dict[str, Any]] = {}
    with record.logged(workdir):
        for group in groups(runs, networks):
            results |= train_group(group, networks)
    return {str(run.folder.relative_to(workdir)): results[run.folder] for run in runs}


def provenance(
    config: Config, name: str, dataset: Dataset, weights: dict[str, str], sources: Sources
) -> Provenance:
    """What a run of this recipe on a category is made from, here and now."""
    return Provenance(
        config=config,
        category=name,
        data=dataset.fingerprint,
        weights=weights,
        num_images=len(dataset.train),
        data_dir=sources.data_dir,
        weights_dir=sources.weights_dir,
        versions=versions(),
        device=str(jax.local_devices()[0].device_kind),
    )


class Restored(NamedTuple):
    """A run as it is at its last checkpoint."""

    state: TrainState
    provenance: Provenance
    networks: Networks


def restore(workdir: Path, category: str, sources: Sources) -> Restored:
    """A run from its checkpoint.

    Args:
        workdir: that it was trained in.
        category: the run's.
        sources: where the weights are now; None: where they were.

    Raises:
        InputError: no such run, or other weights than it was trained with.
    """
    folder = workdir / category
    with _checkpoints(folder) as checkpoints:
        old = _made_from(checkpoints, folder)
        places = Sources(weights_dir=sources.weights_dir or old.weights_dir).resolved()
        networks, weights = load_networks(old.config, places)
        check_same_run(old, dataclasses.replace(old, weights=weights), folder)
        fresh = fresh_state(old.config, networks, old.num_images)
        state = checkpoints.restore(sharding.everywhere(fresh))
    if int(state.step) == 0:
        raise InputError(f"{folder}: no checkpoint in it is whole; give its launch.train again")
    return Restored(state, old, networks)


def _checkpoints(folder: Path) -> Checkpoints:
    if not (folder / "checkpoints").is_dir():
        raise InputError(f"{folder}: no run in it (a run's folder is --workdir, --category)")
    return Checkpoints(folder / "checkpoints")


def _made_from(checkpoints: Checkpoints, folder: Path) -> Provenance:
    found = checkpoints.provenance()
    if found is None:
        raise InputError(f"{folder}: the run has no checkpoint yet; train it first")
    return found


def examples_of(workdir: Path, category: str, sources: Sources) -> Sequence[Example]:
    """The test images of a run, where they are now or were. Raises InputError."""
    with _checkpoints(workdir / category) as checkpoints:
        old = _made_from(checkpoints, workdir / category)
    places = Sources(sources.data_dir or old.data_dir)
    return load_dataset(old.config, category, places.resolved()).test


def dataset_of(old: Provenance, sources: Sources, folder: Path) -> Dataset:
    """What the run in `folder` is made from, where it is now or was. Raises InputError if it
    differs.
    """
    places = Sources(sources.data_dir or old.data_dir)
    dataset = load_dataset(old.config, old.category, places.resolved())
    check_same_run(old, dataclasses.replace(old, data=dataset.fingerprint), folder)
    return dataset


def evaluate_category(workdir: Path, category: str, sources: Sources) -> dict[str, Any]:
    """The metrics of a trained run again, from its checkpoint; see `evaluate`.

    Args:
        workdir: that the run was trained in.
        category: the run's.
        sources: where data and weights are now; None: where they were.

    Raises:
        InputError: no such run, or other data or weights than it was trained with.
    """
    state, old, networks = restore(workdir, category, sources)
    folder = workdir / category
    dataset = dataset_of(old, sources, folder)
    total = total_steps(old.config, old.num_images)
    if state.step < total:
        log.warning("%s: unfinished, at step %d of %d", category, int(state.step), total)
    with files.locked(folder):
        return evaluate(state, old, dataset, networks, folder, seconds_so_far(folder))
