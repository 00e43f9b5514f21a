"""Small data sets and weights, made up: for what does not depend on real ones."""

from __future__ import annotations

import io
import time
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from PIL import Image

from pfm_jax import backbones
from pfm_jax.backbones import weights
from pfm_jax.config import Config, DataConfig, MappingConfig, NetworksConfig, TrainConfig
from pfm_jax.inference.scorer import Scorer
from pfm_jax.sweeps.plan import replaced
from pfm_jax.types import Sources
from tests.parity.goldens.seeded import seeded_tensor

LEVELS = ("conv2_x", "conv3_x", "conv4_x")


def png(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "png")
    return buffer.getvalue()


def texture(seed: int, size: int = 64) -> np.ndarray:
    """uint8 RGB: a soft grid with noise."""
    rng = np.random.default_rng(seed)
    grid = 128 + 60 * np.sin(np.arange(size) / 3)[:, None] * np.sin(np.arange(size) / 4)[None]
    return (grid[..., None] + rng.normal(0, 8, (size, size, 3))).clip(0, 255).astype(np.uint8)


def red_square(size: tuple[int, int] = (90, 60)) -> np.ndarray:
    """A texture with a red square."""
    pixels = np.asarray(Image.fromarray(texture(0)).resize(size)).copy()
    pixels[10:40, 20:50] = (255, 0, 0)
    return pixels


def make_images(folder: Path, count: int = 20, size: tuple[int, int] = (50, 80)) -> list[Path]:
    """Every third has a red spot; sizes are not square."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index in range(count):
        pixels = np.asarray(Image.fromarray(texture(index)).resize(size)).copy()
        if index % 3 == 0:
            pixels[20:40, 10:30] = (255, 0, 0)
        paths.append(folder / f"{index:03d}.png")
        paths[-1].write_bytes(png(pixels))
    return paths


def make_category(
    root: Path, *, good: int = 6, bad: int = 4, size: int = 64, seed: int = 0
) -> Path:
    """A category in MVTec's layout: textures, and textures with a flat square."""
    for split, count, start in (("train", good, 0), ("test", 3, 100)):
        folder = root / split / "good"
        folder.mkdir(parents=True)
        for index in range(count):
            (folder / f"{index:03d}.png").write_bytes(png(texture(seed + start + index, size)))
    for folder in (root / "test" / "hole", root / "ground_truth" / "hole"):
        folder.mkdir(parents=True)
    for index in range(bad):
        image, mask = texture(seed + 200 + index, size), np.zeros((size, size), np.uint8)
        spot = (slice(16, 36), slice(8 + 4 * index, 28 + 4 * index))
        image[spot], mask[spot] = (230, 30, 30), 255
        (root / "test" / "hole" / f"{index:03d}.png").write_bytes(png(image))
        (root / "ground_truth" / "hole" / f"{index:03d}_mask.png").write_bytes(png(mask))
    return root


def make_weights(folder: Path, *names: str) -> Path:
    """Seeded random weights in torchvision's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        shapes = weights.expected(backbones.get(name))
        tensors = {key: seeded_tensor(key, shape) for key, shape in shapes.items()}
        safetensors.numpy.save_file(tensors, folder / f"{name}.safetensors")
    return folder


def make_sources(place: Path) -> Sources:
    """Two categories of the same shapes, `grid` and `tile`, and weights for `small_config`."""
    for seed, name in enumerate(("grid", "tile")):
        make_category(place / "data" / name, seed=1000 * seed)
    make_weights(place / "weights", "resnet18", "resnet18_caffe")
    return Sources(str(place / "data"), str(place / "weights"))


def small_config(**train: Any) -> Config:
    """ResNet18 to ResNet18 in its other stride style, small heads, few steps, 64 pixels."""
    defaults: dict[str, Any] = {
        "positions": dict.fromkeys(LEVELS, 64),
        "steps": 30,
        "checkpoint_every": 10,
        "checkpoint_seconds": 0.0,
        "learning_rate": dict.fromkeys(LEVELS, 1e-2),
    }
    return Config(
        name="small",
        data=DataConfig(image_size=64),
        networks=NetworksConfig(source="resnet18", target="resnet18_caffe"),
        mapping=MappingConfig(latent=dict.fromkeys(LEVELS, 8)),
        train=TrainConfig(**{**defaults, **train}),
    )


def plain_config(**train: Any) -> Config:
    """The recipe of the shared detector: half of the images held out."""
    return replaced(small_config(**train), {"data.held_out": 0.5})


def red_scorer(size: int = 64, delay: float = 0.0) -> Scorer:
    """A scorer without networks: the map is how much redder than green a pixel is."""

    def score_batch(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        time.sleep(delay)
        maps = np.maximum(images[..., 0].astype(np.float32) - images[..., 1], 0) / 255
        return maps.max((1, 2)), maps

    normal_scores = np.linspace(0.01, 0.2, 39, dtype=np.float32)
    return Scorer(score_batch, size, normal_scores, lambda: "red")
