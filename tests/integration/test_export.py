"""Artefacts: what they need to be loaded, that they give the same, that they can't be wrong."""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from pfm_jax.config import Config
from pfm_jax.datasets.inputs import examples
from pfm_jax.inference import artifact, export
from pfm_jax.inference.calibration import Threshold
from pfm_jax.inference.detector import Detector, score_batch
from pfm_jax.model.scoring import scoring_spec
from pfm_jax.runs.fit import fit
from pfm_jax.sweeps.plan import replaced
from pfm_jax.types import InputError
from tests.synthetic import make_sources, small_config, texture

ROOT = Path(__file__).parents[2]
IMAGES = np.stack([texture(seed, 80) for seed in range(11)])
THRESHOLD = Threshold(0.25, 0.05, 0.1, 32)

# Stands before a program: imports of what trains detectors fail, then all imports but a few.
BLOCK = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name in {blocked} or name.split(".")[0] in {blocked}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Block())
"""
TRAINING = (
    *("flax", "optax", "orbax", "tensorflow_datasets", "ml_collections", "absl", "safetensors"),
    *(
        "pfm_jax.training.step",
        "pfm_jax.training.loop",
        "pfm_jax.runs.train",
        "pfm_jax.model.heads",
        "pfm_jax.backbones",
    ),
    *(
        "pfm_jax.model.features",
        "pfm_jax.runs.run",
        "pfm_jax.inference.detector",
        *(f"pfm_jax.datasets.{name}" for name in ("folder", "inputs", "mvtec_ad", "archive")),
        "torch",
    ),
    *(
        "pfm_jax.backbones.networks",
        "pfm_jax.model.problem",
        "pfm_jax.runs.fit",
        "pfm_jax.model.scoring",
    ),
)


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Detector:
    sources = make_sources(tmp_path_factory.mktemp("export"))
    images = Path(str(sources.data_dir), "grid", "train", "good")
    recipe = replaced(small_config(steps=10), {"data.held_out": 0.5})
    return fit(images, recipe, sources.weights_dir)


def with_recipe(detector: Detector, config: Config, **parts: Any) -> Detector:
    """The detector under another recipe of the same heads."""
    record = dataclasses.replace(detector.record, config=config)
    return dataclasses.replace(detector, spec=scoring_spec(config), record=record, **parts)


@pytest.fixture(scope="module")
def exported(detector: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("artefact") / "grid.pfm"
    assert export.write(detector, THRESHOLD, examples(IMAGES), path) < 1e-5
    return path


def python(program: str, *arguments: str, cwd: Path = ROOT) -> str:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_without_the_training_modules(detector: Detector, exported: Path, tmp_path: Path) -> None:
    scores, maps = detector.scorer().score(np.stack([image[:64, :64] for image in IMAGES]))
    np.savez(tmp_path / "expected.npz", images=IMAGES[:, :64, :64], scores=scores, maps=maps)
    program = BLOCK.format(blocked=TRAINING) + (
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from pfm_jax.inference import artifact\n"
        "expected = np.load(sys.argv[2])\n"
        "scorer = artifact.load(Path(sys.argv[1]))\n"
        "scores, maps = scorer.score(expected['images'])\n"
        "np.testing.assert_allclose(scores, expected['scores'], atol=1e-5)\n"
        "np.testing.assert_allclose(maps, expected['maps'], atol=1e-5)\n"
        "print(len(scores), scorer.threshold.value, len(scorer.normal_scores))\n"
    )
    told = python(program, str(exported), str(tmp_path / "expected.npz"))
    assert told.split() == ["11", "0.25", "3"]


def test_the_docs_load_it_without_this_package(
    detector: Detector, exported: Path, tmp_path: Path
) -> None:
    page = (ROOT / "docs" / "exported-files.md").read_text()
    (snippet,) = re.findall(r"```python\n(import io.*?)```", page, re.S)
    image = tmp_path / "new.png"
    Image.fromarray(IMAGES[0]).save(image)
    program = snippet.replace("screw.pfm", str(exported)).replace("new.png", str(image))
    blocked = BLOCK.format(blocked=("pfm_jax", *TRAINING))
    told = python(blocked + program, cwd=tmp_path)
    scores, _ = detector.score(IMAGES[:1])
    assert float(told.split()[0]) == pytest.approx(float(scores[0]), abs=1e-5)


def test_any_batch_size_and_all_platforms(detector: Detector, exported: Path) -> None:
    found = artifact.read(exported)
    run = artifact.program(found)
    program = jax.export.deserialize(bytearray(found.program))
    assert program.platforms == ("cpu", "cuda", "tpu")
    scores, _ = detector.scorer().score(IMAGES[:, :64, :64])
    for count in (1, 3, 11):
        outputs = run(IMAGES[:count, :64, :64])
        assert outputs["anomaly_maps"].shape == (count, 64, 64)
        assert set(outputs["levels"]) == {"conv2_x", "conv3_x", "conv4_x", "memory"}
        np.testing.assert_allclose(outputs["image_scores"], scores[:count], atol=1e-5)


def test_it_tells_what_it_is_and_no_paths(exported: Path) -> None:
    with zipfile.ZipFile(exported) as file:
        assert file.testzip() is None
        manifest = json.loads(file.read("manifest.json"))
        everything = b"".join(file.read(name) for name in file.namelist())
    assert manifest["threshold"] == dataclasses.asdict(THRESHOLD)
    assert manifest["preprocessing"]["size"] == 64
    sides = manifest["preprocessing"]["normalised_by_the_program"]
    assert sides["source"]["network"] == "resnet18"
    assert sides["source"]["mean"] == [0.485, 0.456, 0.406]
    assert {"weights", "versions", "config"} <= set(manifest["origin"])
    assert str(ROOT).encode() not in everything
    assert str(exported.parent.parent).encode() not in everything


def built_at(days_ago: int, version: str, exported: Path, path: Path) -> Path:
    """The artefact as if it had been made then, by that jax."""
    found = artifact.read(exported)
    until = datetime.datetime.now(datetime.UTC).date() + datetime.timedelta(180 - days_ago)
    build = {**found.manifest["build"], "jax": version, "until": f"{until}"}
    path.write_bytes(artifact.pack(found._replace(manifest={**found.manifest, "build": build})))
    return path


@pytest.mark.parametrize(
    ("days", "version", "warns"),
    [(10, "0.1.0", False), (400, jax.__version__, False), (400, "0.1.0", True)],
)
def test_a_program_past_its_time_says_so(
    days: int,
    version: str,
    warns: bool,
    exported: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The promise of `jax.export` ends after six months, unless the reader is the maker."""
    artifact.load(built_at(days, version, exported, tmp_path / "old.pfm"))
    assert ("export it again: python -m launch.export" in caplog.text) == warns


def test_a_program_that_jax_cannot_read_is_named(exported: Path, tmp_path: Path) -> None:
    path = built_at(400, "0.1.0", exported, tmp_path / "old.pfm")
    found = artifact.read(path)
    path.write_bytes(artifact.pack(found._replace(program=found.program[:100])))
    with pytest.raises(InputError, match=r"old\.pfm: the program was made by jax 0\.1\.0 to"):
        artifact.load(path)


def test_without_a_threshold_it_is_exported_all_the_same(
    detector: Detector, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    export.write(detector, None, examples(IMAGES), tmp_path / "grid.pfm")
    assert artifact.load(tmp_path / "grid.pfm").threshold is None
    decided = detector.predict(IMAGES[:2])
    assert decided.is_anomalous is None and decided.threshold is None
    assert decided.scores.shape == (2,)
    assert "no threshold, and so no decisions: false_positive_rate=0.05 needs 19" in caplog.text
    with pytest.raises(InputError, match=r"needs 9 normal images .* ask for a rate of 0\.25"):
        detector.predict(IMAGES[:2], false_positive_rate=0.1)


@pytest.mark.parametrize("fault", ["cut", "bit", "text", "none", "zip", "format"])
def test_files_that_are_no_artefact(fault: str, exported: Path, tmp_path: Path) -> None:
    path, content = tmp_path / "bad.pfm", bytearray(exported.read_bytes())
    if fault == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif fault == "bit":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif fault == "text":
        path.write_text("not an artefact")
    elif fault == "zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("a", "b")
    elif fault == "format":
        path.write_bytes(content.replace(b"pfm_jax artifact 2", b"pfm_jax artifact 1"))
    with pytest.raises(InputError, match=r"bad\.pfm: "):
        artifact.load(path)


@pytest.mark.parametrize(
    ("stage", "message"),
    [("heads", "weight model/heads/conv2_x"), ("program", "anomaly map at conv3_x")],
)
def test_another_model_is_refused(
    stage: str,
    message: str,
    detector: Detector,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A fault in what is written is found before it has a name."""
    whole = export.make(detector, THRESHOLD)
    if stage == "heads":
        weights = {
            name: array + (name == "model/heads/conv2_x/forward/layers/0/kernel") * np.float32(1e-3)
            for name, array in whole.weights.items()
        }
        faulty = whole._replace(weights=weights)
    else:
        heads = detector.model.heads
        forward = heads["conv3_x"]["forward"]
        *layers, last = forward.layers
        changed = (*layers, dataclasses.replace(last, kernel=last.kernel + 0.1))
        head = {**heads["conv3_x"], "forward": dataclasses.replace(forward, layers=changed)}
        model = detector.model._replace(heads={**heads, "conv3_x": head})
        other = dataclasses.replace(detector, model=model)
        # A program with the change inside: the weights of the file are as they should be.
        monkeypatch.setattr(artifact, "program", lambda _: export_outputs(other))
        faulty = whole
    monkeypatch.setattr(export, "make", lambda *_: faulty)
    with pytest.raises(InputError, match=message):
        export.write(detector, THRESHOLD, examples(IMAGES), tmp_path / "grid.pfm")
    assert not list(tmp_path.iterdir())


def export_outputs(detector: Detector) -> Callable[[np.ndarray], dict[str, Any]]:
    return lambda images: export.outputs(score_batch(detector, images))


def test_tiles_are_exported(detector: Detector, tmp_path: Path) -> None:
    data = dataclasses.replace(detector.config.data, image_size=128, tile_size=64, tile_overlap=16)
    memory = jnp.tile(detector.model.memory, (9, 1, 1, 1, 1))
    model = detector.model._replace(memory=memory)
    cut = with_recipe(detector, dataclasses.replace(detector.config, data=data), model=model)
    export.write(cut, THRESHOLD, examples(IMAGES), tmp_path / "tiles.pfm")
    scorer = artifact.load(tmp_path / "tiles.pfm")
    images = np.stack([texture(seed, 128) for seed in range(3)])
    scores, maps = scorer.score(images)
    expected, expected_maps = cut.scorer().score(images)
    np.testing.assert_allclose(scores, expected, atol=1e-5)
    np.testing.assert_allclose(maps, expected_maps, atol=1e-5)
    assert maps.shape == (3, 128, 128)


def test_averaged_features_are_kept_and_exported(detector: Detector, tmp_path: Path) -> None:
    networks = dataclasses.replace(detector.networks, neighbourhood=3)
    config = replaced(detector.config, {"networks.neighbourhood": 3})
    other = with_recipe(detector, config, networks=networks)
    images = np.stack([texture(seed) for seed in range(3)])
    scores, _ = other.score(images)
    assert (scores != detector.score(images)[0]).all()
    other.save(tmp_path / "other.detector")
    np.testing.assert_array_equal(
        Detector.load(tmp_path / "other.detector").score(images)[0], scores
    )
    export.write(other, THRESHOLD, examples(IMAGES), tmp_path / "other.pfm")
    found, _ = artifact.load(tmp_path / "other.pfm").score(images)
    np.testing.assert_allclose(found, scores, atol=1e-5)
