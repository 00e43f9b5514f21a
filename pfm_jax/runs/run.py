"""One run: its data and networks found, its detector loaded, evaluated and measured again."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from pfm_jax import datasets
from pfm_jax.config import Config
from pfm_jax.evaluation import proxy
from pfm_jax.evaluation.evaluate import Combinations, Evaluation, evaluate
from pfm_jax.inference.detector import Detector
from pfm_jax.model.problem import Problem, make_extent
from pfm_jax.runs import learning, record
from pfm_jax.system import devices, files
from pfm_jax.training.checkpoint import Checkpoints, Provenance, check_same_run, versions
from pfm_jax.types import Dataset, Example, InputError, Sources

PATHS = ("data_dir", "weights_dir")
"""Fields of the provenance that are paths of the machine it was trained on."""


log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class RunFolder:
    """A run and the folder that it is kept in.

    Attributes:
        combinations: additional combinations of levels to evaluate.
        parts: the categories of a unified run, each with a detector and results in its own folder.
        seconds: phase -> seconds so far; its values change.
        checkpoints: its checkpoints, while they are open.
    """

    folder: Path
    provenance: Provenance
    dataset: Dataset
    combinations: Combinations = ()
    parts: tuple[RunFolder, ...] = ()
    seconds: dict[str, float] = dataclasses.field(default_factory=dict)
    checkpoints: Checkpoints | None = None

    @property
    def config(self) -> Config:
        """The recipe."""
        return self.provenance.config

    @property
    def problem(self) -> Problem:
        """The problem that it trains."""
        return learning.make_problem(self.config)

    @property
    def total_steps(self) -> int:
        """Steps of the whole run; none of what is fitted at once."""
        if not learning.is_trained(self.config):
            return 0
        return int(make_extent(self.problem, self.provenance.num_images).total_steps)

    @property
    def evaluated(self) -> tuple[RunFolder, ...]:
        """Runs to evaluate: its parts, or else itself."""
        return self.parts or (self,)

    @property
    def detector_path(self) -> Path:
        """File of the trained detector."""
        return self.folder / record.DETECTOR

    def write_status(self, status: str) -> None:
        """Writes `run.json`, those of its parts too; see `record.write_run`."""
        for one in (self, *self.parts):
            record.write_run(one.folder, one.provenance, status, one.seconds)

    def evaluate(self, detector: Detector) -> tuple[Evaluation, dict[str, Any]]:
        """Evaluates the run's detector; returns the evaluation and the content of `metrics.json`.

        On the test images as they are now. `record.write_evaluation` writes both.
        """
        before = record.read_metrics(self.folder).get("test_data", self.dataset.test_fingerprint)
        if before != self.dataset.test_fingerprint:
            log.warning("%s: the test images are others than at the last evaluation", self.folder)
        with record.timed(self.seconds, "evaluate"):
            found = evaluate(detector, self.dataset, self.combinations)
        held_out = [example.path for example in self.dataset.held_out]
        normal_scores = self.folder / "normal_scores.csv"
        record.write_scores(normal_scores, held_out, detector.normal_scores, [0] * len(held_out))
        about = {
            "seconds": self.seconds,
            "counts": {
                "train": self.provenance.num_images,
                "held_out": len(held_out),
                "test_good": int((found.labels == 0).sum()),
                "test_anomalous": int(found.labels.sum()),
            },
            "step": self.total_steps,
            "test_data": self.dataset.test_fingerprint,
            **self.provenance.to_json(),
            "seed": self.config.seed,
        }
        return found, {**found.to_json(), **about}


def resolved(sources: Sources) -> Sources:
    """Makes both paths absolute; falls back on `$PFM_JAX_WEIGHTS`."""
    paths = sources.data_dir, sources.weights_dir or os.environ.get("PFM_JAX_WEIGHTS")
    return Sources(*(os.path.abspath(path) if path else None for path in paths))


def load_dataset(config: Config, category: str, sources: Sources) -> Dataset:
    """Loads a category, with the normal images that the recipe holds out. Raises InputError."""
    return load_datasets([config], category, sources)[0]


def load_datasets(configs: Sequence[Config], category: str, sources: Sources) -> list[Dataset]:
    """Loads a category for recipes that differ in their seeds; the same object for all of them
    unless shots are drawn. Raises InputError.
    """
    data = configs[0].data
    place = data.dataset, sources.data_path, category, data.value_range
    if devices.is_primary():  # prepares the cache, where the others find it
        found = datasets.load(*place)
    devices.barrier("data")
    if not devices.is_primary():
        found = datasets.load(*place)
    if not data.shots:
        return [_split(configs[0], found)] * len(configs)
    return [_split(config, found) for config in configs]


def _split(config: Config, dataset: Dataset) -> Dataset:
    try:
        shots = datasets.draw_shots(dataset.train, config.data.shots, config.seed)
    except InputError as error:
        raise InputError(f"{dataset.category}: {error}") from error
    if dataset.held_out and not config.data.shots:
        return dataset
    if dataset.held_out:
        log.warning("%s: its validation images are not used with data.shots", dataset.category)
    train, held_out = datasets.hold_out(shots, config.data.held_out)
    return dataclasses.replace(dataset, train=train, held_out=held_out)


def provenance(
    config: Config, name: str, dataset: Dataset, weights: dict[str, str], sources: Sources
) -> Provenance:
    """Provenance of a run of this recipe on a category, here and now."""
    return Provenance(
        config=config,
        category=name,
        trained_on=(name,),
        data=dataset.fingerprint,
        weights=weights,
        num_images=len(dataset.train),
        data_dir=sources.data_dir,
        weights_dir=sources.weights_dir,
        versions=versions(),
        device=str(jax.local_devices()[0].device_kind),
    )


def origin(provenance: Provenance) -> dict[str, Any]:
    """Provenance as a detector carries it: without recipe, which it has, and paths."""
    left_out = ("config", *PATHS)
    return {k: v for k, v in provenance.to_json().items() if k not in left_out}


def load_detector(workdir: Path, category: str, weights_dir: str | None = None) -> Detector:
    """Loads the detector of a finished run; `weights_dir` is where the weights are, if they moved.

    Raises InputError: no such run, an unfinished one, or other weights than it was trained with.
    """
    folder = workdir / category
    old = record.read_run(folder)
    if old.category not in old.trained_on:
        names = ", ".join(old.trained_on)
        raise InputError(
            f"{folder}: a unified run; give --workdir={folder} --category=X, of {names}"
        )
    if not (folder / record.DETECTOR).is_file():
        raise InputError(f"{folder}: the run is not finished; give its launch.train again")
    weights_dir = resolved(Sources(None, weights_dir or old.weights_dir)).weights_dir
    return Detector.load(folder / record.DETECTOR, weights_dir)


def _load_run(folder: Path, sources: Sources) -> RunFolder:
    """Loads a run's provenance and its data, from where it is now or was. Raises InputError."""
    old = record.read_run(folder)
    places = Sources(sources.data_dir or old.data_dir)
    dataset = load_dataset(old.config, old.category, resolved(places))
    return RunFolder(folder, old, dataset)


def examples_of(workdir: Path, category: str, sources: Sources) -> Sequence[Example]:
    """Test images of a run, or else normal ones, from where they are now or were.

    Raises InputError.
    """
    dataset = _load_run(workdir / category, sources).dataset
    return dataset.test or dataset.held_out or dataset.train


def _load_finished(workdir: Path, category: str, sources: Sources) -> tuple[Detector, RunFolder]:
    """Loads a finished run and its detector. Raises InputError: other training data or weights."""
    detector = load_detector(workdir, category, sources.weights_dir)
    run = _load_run(workdir / category, sources)
    now = dataclasses.replace(run.provenance, data=run.dataset.fingerprint)
    check_same_run(run.provenance, now, run.folder)
    return detector, run


def evaluate_run(workdir: Path, category: str, sources: Sources) -> dict[str, Any]:
    """Evaluates a finished run again; returns `metrics.json`.

    `sources` is where data and weights are now; None: where they were. Raises InputError: no
    finished run, or other data or weights than it was trained with.
    """
    detector, run = _load_finished(workdir, category, sources)
    run.seconds.update(record.seconds_so_far(run.folder))
    with files.locked(run.folder):
        found, results = run.evaluate(detector)
        record.write_evaluation(run.folder, found, results)
    return results


def measure_proxy(workdir: Path, category: str, sources: Sources) -> dict[str, Any]:
    """Measures the proxy of a finished run; also written to `proxy.json` in its folder.

    Raises InputError: see `evaluate_run`; or no image is held out.
    """
    detector, run = _load_finished(workdir, category, sources)
    found = proxy.measure(detector, run.dataset.held_out)
    record.write_json(run.folder / "proxy.json", found)
    return found
