"""The library's face: good images in, a detector out; images in, scores and maps out.

detector = pfm_jax.Detector.fit("good/")
scores, anomaly_maps = detector.score("new/")
detector.save("screw.detector")
"""

from __future__ import annotations

import csv
import dataclasses
import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from pfm_jax import (
    array_file,
    backbones,
    cache,
    calibration,
    datasets,
    loop,
    mapping,
    pretrained,
    scoring,
    standard,
    tiles,
)
from pfm_jax import images as image_files
from pfm_jax.backbones import Backbone
from pfm_jax.calibration import Threshold
from pfm_jax.checkpoint import versions
from pfm_jax.config import Config, from_dict, validate
from pfm_jax.datasets.loose import Images, examples
from pfm_jax.evaluate import NORMAL_SCORES, evaluated_step
from pfm_jax.features import Networks, feature_shapes
from pfm_jax.group import fresh_state, total_steps
from pfm_jax.mapping import FoldedHeads
from pfm_jax.run import Sources, load_networks, restore
from pfm_jax.scorer import Scorer
from pfm_jax.types import InputError

NOT_TOLD = ("config", "data_dir", "weights_dir")
"""Of a run's provenance: kept elsewhere, or a path of the machine it was trained on."""


class Prediction(NamedTuple):
    """What a detector says of N images.

    Attributes:
        scores: `[N]`, the maximum of each anomaly map; 0 is perfectly mapped. If maps are
            standardised it is the greatest deviation, and 0 what a pixel is on average.
        p_values: `[N]`; see `calibration.p_values`.
        is_anomalous: bool `[N]`, whether the score exceeds the threshold.
        threshold: see `calibration.Threshold`.
        anomaly_maps: of each image, `[H, W]`, at its own resolution.
    """

    scores: np.ndarray
    p_values: np.ndarray
    is_anomalous: np.ndarray
    threshold: Threshold
    anomaly_maps: list[np.ndarray]


@dataclasses.dataclass(frozen=True)
class Detector:
    """A trained detector of anomalies.

    Attributes:
        networks: the two frozen ones.
        heads: the trained ones, folded.
        config: the recipe.
        normal_scores: `[n]`, of held-out normal images.
        origin: what it was made from: weights, data, versions; no paths.
    """

    networks: Networks
    heads: FoldedHeads
    config: Config
    normal_scores: np.ndarray
    origin: dict[str, Any]

    @classmethod
    def fit(
        cls,
        images: Images,
        config: Config | None = None,
        weights_dir: str | None = None,
        normal: Images | None = None,
    ) -> Detector:
        """Learns what normal images look like.

        Args:
            images: normal ones.
            config: the recipe; `Config()` if None. A part `config.data.held_out` of the images is
                not learned from and sets the threshold.
            weights_dir: where pretrained weights are; see `pretrained.load`.
            normal: further normal images to set the threshold by, instead of that part.

        Raises:
            InputError: images, recipe or weights that can't be used.
        """
        config = config or Config()
        validate(config)
        train, held_out = datasets.hold_out(examples(images), config.data.held_out)
        if normal is not None:
            train, held_out = examples(images), examples(normal)
        standard.check(config, len(train))
        networks, weights = load_networks(config, Sources(weights_dir=weights_dir))
        cut, levels = tiles.training_tiles(config.data), tuple(config.mapping.latent)
        rows = cache.build_cache(networks, train, cut, levels)
        (state,), _ = loop.fit([fresh_state(config, networks, len(train))], rows, config)
        del rows
        heads = jax.jit(mapping.fold)(state.params, state.batch_stats)
        heads = standard.measured(networks, heads, train, config)
        scores = scoring.image_scores_of(networks, heads, held_out, config, "held out")
        origin = {"weights": weights, "num_images": len(train), "versions": versions()}
        return cls(networks, heads, config, scores, origin)

    def scorer(self) -> Scorer:
        """The same as a function of batches."""
        cut, config = tiles.scoring_tiles(self.config.data), self.config

        def score_batch(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            found = scoring.score_images(
                self.networks, self.heads, images, config.mapping, config.scoring, cut
            )
            return np.asarray(found.image_scores), np.asarray(found.fused)

        size = self.config.data.image_size
        return Scorer(score_batch, size, self.normal_scores, self._fingerprint)

    @functools.cached_property
    def _fingerprint(self) -> str:
        return array_file.fingerprint(_arrays(self))

    def score(self, images: Images) -> tuple[np.ndarray, list[np.ndarray]]:
        """Scores `[N]` and, of each image, an anomaly map `[H, W]` at its own resolution.

        Raises:
            InputError: an image that can't be read.
        """
        scorer, given = self.scorer(), examples(images)

        def decoded(start: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
            some = [given[i] for i in range(start, min(start + image_files.BATCH_SIZE, len(given)))]
            opened = [image_files.open_rgb(example.image, example.path) for example in some]
            arrays = [image_files.resized(image, scorer.size) for image in opened]
            return np.stack(arrays), [image.size for image in opened]

        scores: list[np.ndarray] = [np.zeros(0, np.float32)]
        maps: list[np.ndarray] = []
        for arrays, sizes in image_files.ahead(
            decoded, range(0, len(given), image_files.BATCH_SIZE)
        ):
            found, small = scorer.score(arrays)
            if not np.isfinite(found).all():
                name = given[len(maps) + int(np.isfinite(found).argmin())].path
                raise InputError(f"{name}: its score is not finite")
            scores.append(found)
            maps += [image_files.map_at(m, size) for m, size in zip(small, sizes, strict=True)]
        return np.concatenate(scores), maps

    def predict(self, images: Images, false_positive_rate: float = 0.05) -> Prediction:
        """Scores, and decides which images are anomalous.

        Raises:
            InputError: too few images were held out for the rate, or one can't be read.
        """
        threshold = calibration.threshold(self.normal_scores, false_positive_rate)
        scores, maps = self.score(images)
        p_values = calibration.p_values(scores, self.normal_scores)
        return Prediction(scores, p_values, scores > threshold.value, threshold, maps)

    def save(self, path: str | Path) -> None:
        """Writes all of it, networks included, to one file, whole or not at all."""
        about = {
            "config": dataclasses.asdict(self.config),
            "networks": (self.networks.source_backbone.name, self.networks.target_backbone.name),
            "origin": self.origin,
        }
        array_file.write(Path(path), _arrays(self), about)

    @classmethod
    def load(cls, path: str | Path) -> Detector:
        """The inverse of `save`. Raises InputError: no detector, or a damaged one."""
        arrays, about = array_file.read(Path(path))
        try:
            config, normal_scores = from_dict(about["config"]), arrays.pop("normal_scores")
        except KeyError as error:
            raise InputError(f"{path}: of another version of pfm_jax; make it again") from error
        source, target = map(backbones.get, about["networks"])
        like = tree(*_shapes(source, target, config))
        held = jax.device_put(array_file.filled(like, arrays, Path(path)))
        around = config.networks.neighbourhood
        networks = Networks(held["source"], held["target"], source, target, around)
        return cls(networks, held["heads"], config, normal_scores, about["origin"])

    @classmethod
    def from_run(cls, workdir: Path, category: str, weights_dir: str | None = None) -> Detector:
        """The detector that `launch.train` trained.

        Raises:
            InputError: no such run, an unfinished one, or other weights than it was trained with.
        """
        state, provenance, networks = restore(workdir, category, Sources(None, weights_dir))
        folder, total = workdir / category, total_steps(provenance.config, provenance.num_images)
        evaluated = evaluated_step(folder) == state.step and (folder / NORMAL_SCORES).is_file()
        if state.step < total or not evaluated:
            raise InputError(f"{folder}: the run is not finished; give its launch.train again")
        with (folder / NORMAL_SCORES).open() as rows:
            scores = np.array([row["score"] for row in csv.DictReader(rows)], np.float32)
        heads = jax.jit(mapping.fold)(state.params, state.batch_stats)
        heads = standard.restored(heads, folder, provenance.config)
        origin = {k: v for k, v in provenance.to_json().items() if k not in NOT_TOLD}
        return cls(networks, heads, provenance.config, scores, origin)


def tree(networks: Networks, heads: FoldedHeads) -> dict[str, Any]:
    """All arrays of a detector but its scores, as they are named in files."""
    return {"source": networks.source, "target": networks.target, "heads": heads}


def _arrays(detector: Detector) -> dict[str, np.ndarray]:
    arrays = array_file.named(tree(detector.networks, detector.heads))
    return {**arrays, "normal_scores": detector.normal_scores}


def _shapes(source: Backbone, target: Backbone, config: Config) -> tuple[Networks, FoldedHeads]:
    """What a detector of this recipe holds, by shapes alone."""
    params = pretrained.shapes(source), pretrained.shapes(target)
    networks = Networks(*params, source, target)
    levels, size = tuple(config.mapping.latent), tiles.scoring_tiles(config.data).size
    heads = mapping.make_heads(config.mapping, feature_shapes(networks, size, levels))
    folded = jax.eval_shape(lambda: mapping.fold(*mapping.init(heads, jax.random.key(0))))
    return networks, dataclasses.replace(folded, standard=standard.shapes(config))
