"""The trained detector: a frozen pytree, and the one jitted function of inference."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import Array

from pfm_jax import baselines
from pfm_jax.backbones.networks import Networks, load_networks, network_shapes
from pfm_jax.baselines.features import Memory
from pfm_jax.config import Config, from_dict, to_dict
from pfm_jax.datasets.decoding import decode, turn
from pfm_jax.datasets.images import ahead, blank_at, map_at, resized
from pfm_jax.datasets.inputs import Images, examples
from pfm_jax.inference import calibration
from pfm_jax.inference.prediction import Prediction, decide
from pfm_jax.inference.scorer import Scorer
from pfm_jax.inference.streaming import score_examples
from pfm_jax.model import scoring
from pfm_jax.model.scoring import MappingModel
from pfm_jax.system import arrays, devices
from pfm_jax.types import Example, InputError, ScoreMaps

Model = MappingModel | Memory
"""The mapping's, or what a baseline keeps of normal images."""

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, eq=False)
class Record:
    """Facts about a detector that its programs do not depend on.

    All records are equal, so that `jit` compiles nothing for a second detector of the same recipe.

    Attributes:
        normal_scores: `[n]`, of held-out normal images.
        origin: what it was made from: weights, data, versions; no paths.
    """

    config: Config
    normal_scores: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.float32))
    origin: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Record)

    def __hash__(self) -> int:
        return hash(Record)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, eq=False)
class Detector:
    """A trained detector of anomalies.

    Attributes:
        model: what was trained, or fitted, on normal images.
        ignored: bool `[H, W]` at the recipe's size: blank to the networks, and scored 0; or None.
        record: recipe, held-out scores and provenance.
    """

    networks: Networks
    model: Any
    ignored: Array | None
    spec: scoring.ScoringSpec = dataclasses.field(metadata={"static": True})
    record: Record = dataclasses.field(metadata={"static": True})

    @property
    def config(self) -> Config:
        """The recipe."""
        return self.record.config

    @property
    def normal_scores(self) -> np.ndarray:
        """Image scores `[n]` of held-out normal images."""
        return self.record.normal_scores

    @functools.cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) of all arrays and of the recipe of scoring."""
        config = self.config
        recipe = repr((config.data, config.baseline, config.mapping, config.scoring)).encode()
        return hashlib.sha256(recipe + arrays.fingerprint(_arrays(self)).encode()).hexdigest()

    def stream(self, examples: Sequence[Example], what: str | None = None) -> Iterator[ScoreMaps]:
        """Scores a data set, batch after batch, on all devices; see `streaming.score_examples`."""
        size = self.config.data.image_size
        return score_examples(lambda images: score_batch(self, images), examples, size, what)

    def image_scores(self, examples: Sequence[Example], what: str | None = None) -> np.ndarray:
        """Image scores `[N]` of a data set. Raises InputError; see `stream`."""
        found = (maps.image_scores for maps in self.stream(examples, what))
        return np.concatenate([np.zeros(0, np.float32), *found])

    def scorer(self) -> Scorer:
        """The detector as a function of batches."""

        def of_batch(images: Any) -> tuple[Array, Array]:
            found = score_batch(self, images)
            return found.image_scores, found.fused

        data = self.config.data
        about = self.normal_scores, lambda: self.fingerprint
        return Scorer(of_batch, data.image_size, *about, value_range=data.value_range)

    def score(self, images: Images) -> tuple[np.ndarray, list[np.ndarray]]:
        """Scores images: a folder, files, a glob, arrays, PIL images; see `datasets.inputs.Images`.

        Returns image scores `[N]` and, for each image, its anomaly map `[H, W]` at its own
        resolution. Raises InputError: an image that can't be read.
        """
        data = self.config.data
        given = examples(images, data.value_range)

        def decoded(index: int) -> tuple[np.ndarray, tuple[int, int]]:
            example = given[index]
            with turn(example.image):
                image, notes, _ = decode(example.image, example.path, example.value_range)
                pixels = resized(image, data.image_size)
            for note in notes:
                log.warning("%s: %s", example.path, note)
            return pixels, image.size

        scores: list[np.ndarray] = [np.zeros(0, np.float32)]
        maps: list[np.ndarray] = []
        batches = ahead(decoded, range(len(given)), devices.batch_size())
        parts = (zip(*batch, strict=True) for batch in batches)
        stacked = ((np.stack(pixels), sizes) for pixels, sizes in parts)
        for found, small, sizes in self.scorer().stream(stacked):
            if not (finite := np.isfinite(found)).all():
                name = given[len(maps) + int(finite.argmin())].path
                raise InputError(f"{name}: its score is not finite")
            scores.append(found)
            maps += [map_at(m, s) for m, s in zip(small, sizes, strict=True)]
        return np.concatenate(scores), maps

    def predict(self, images: Images, false_positive_rate: float | None = None) -> Prediction:
        """Scores images and decides which are anomalous.

        With too few held-out images for the default rate (None) there are no decisions, and a
        warning. Raises InputError: too few for the given rate, or an image that can't be read.
        """
        normal, rate = self.normal_scores, false_positive_rate
        given = None if rate is None else calibration.threshold(normal, rate)
        threshold = given or calibration.default_threshold(normal)
        return decide(*self.score(images), normal, threshold)

    def save(self, path: str | Path, *, networks: bool = True) -> None:
        """Writes the detector to one file, atomically.

        `networks`: whether the frozen weights are included; without them, `load` looks for them.
        """
        about = {
            "config": to_dict(self.config),
            "networks": self.networks.outputs if networks else None,
            "origin": self.record.origin,
        }
        held = self if networks else dataclasses.replace(self, networks=None)  # type: ignore[arg-type]
        arrays.write(Path(path), _arrays(held), about)

    @classmethod
    def load(
        cls, path: str | Path, weights_dir: str | None = None, networks: Networks | None = None
    ) -> Detector:
        """Reads a file of `save`. Frozen weights that it does not hold are those of `networks`, or
        lie in `weights_dir`.

        Raises InputError: not a detector, damaged, or made with other weights.
        """
        held, about = arrays.read(Path(path))
        try:
            config, normal_scores = from_dict(about["config"]), held.pop("normal_scores")
            record, outputs = Record(config, normal_scores, about["origin"]), about["networks"]
        except KeyError as error:
            raise InputError(f"{path}: of another version of pfm_jax; make it again") from error
        if outputs:
            networks = network_shapes(outputs, config.networks.neighbourhood)
        networks = networks or _networks_of(record, weights_dir, path)
        memory = arrays.shapes_in(held, "model")
        like = shapes(networks, record, memory=memory, ignoring="ignored" in held)
        like = like if outputs else dataclasses.replace(like, networks=None)
        filled = devices.replicate(arrays.filled(like, held, Path(path)))
        return filled if outputs else dataclasses.replace(filled, networks=networks)


@jax.jit
def score_batch(detector: Detector, images: Array) -> ScoreMaps:
    """Scores uint8 RGB images `[B, H, W, 3]` of the recipe's size: the whole of inference."""
    score = scoring.score if detector.spec.baseline is None else baselines.score
    return score(detector.networks, detector.model, images, detector.spec, detector.ignored)


def _arrays(detector: Detector) -> dict[str, np.ndarray]:
    return {**arrays.named(detector), "normal_scores": detector.normal_scores}


def _networks_of(record: Record, weights_dir: str | None, path: str | Path) -> Networks:
    config = record.config
    networks, found = load_networks(config.networks, config.levels, weights_dir)
    if found != (wanted := record.origin["weights"]):
        differing = [name for name in wanted if found.get(name) != wanted[name]]
        raise InputError(
            f"{path}: made with other weights of {', '.join(differing)}; set --weights_dir to the "
            "folder of those it was trained with"
        )
    return networks


def assemble(
    networks: Networks,
    model: Model,
    record: Record,
    ignored: np.ndarray | None = None,
) -> Detector:
    """Makes a detector that has scored no held-out images; `ignored` is of any size."""
    spec, size = scoring.scoring_spec(record.config), record.config.data.image_size
    held: Any = None if ignored is None else devices.replicate(blank_at(ignored, size))
    return Detector(networks, model, held, spec, record)


def shapes(
    networks: Networks, record: Record, *, memory: Memory | None = None, ignoring: bool = False
) -> Any:
    """Shapes of its arrays; `memory`: those of what a baseline keeps, which no recipe tells."""
    config = record.config
    model: Any = memory
    if config.baseline is None:
        model = jax.eval_shape(lambda: scoring.untrained(networks, config))
    plane: Any = jax.ShapeDtypeStruct((config.data.image_size,) * 2, bool)
    spec = scoring.scoring_spec(config)
    return Detector(networks, model, plane if ignoring else None, spec, record)


load = Detector.load
