"""Readers under files that were edited at random: a value or an InputError, soon, in little memory.

    python -m tests.fuzz --minutes=10

Hypothesis chooses a whole file and edits it. Anything but an InputError is a find, and so is more
than `SECONDS` or more than `GIBIBYTES` of further memory.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.numpy
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st
from PIL import Image

from pfm_jax.backbones import locate, torch_checkpoint
from pfm_jax.datasets import decoding, images
from pfm_jax.inference import artifact
from pfm_jax.system import arrays
from pfm_jax.types import InputError
from tests.synthetic import texture

GOLDENS = Path(__file__).parent / "parity" / "goldens"
SECONDS, GIBIBYTES = 5, 2
SPECIAL = (b"\x00", b"\xff", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x00" * 8, b"\xff" * 8)


def picture(kind: str, mode: str = "RGB", **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(texture(0, 32)).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def as_image(content: bytes, _: Path) -> object:
    return images.resized(decoding.decode(content, "image").image, 32)


def as_torch(content: bytes, place: Path) -> object:
    (place / "a.pth").write_bytes(content)
    return torch_checkpoint.read(place / "a.pth")


def as_safetensors(content: bytes, place: Path) -> object:
    (place / "a.safetensors").write_bytes(content)
    return locate.read(place / "a.safetensors")


def as_detector(content: bytes, place: Path) -> object:
    (place / "a.detector").write_bytes(content)
    return arrays.read(place / "a.detector")


def as_artifact(content: bytes, place: Path) -> object:
    (place / "a.pfm").write_bytes(content)
    return artifact.read(place / "a.pfm")


def saved_arrays(place: Path) -> bytes:
    arrays.write(place / "whole", {"a": np.arange(6, dtype=np.float32)}, {"b": 1})
    return (place / "whole").read_bytes()


def seeds(place: Path) -> list[tuple[str, Callable[[bytes, Path], object], bytes]]:
    """Reader's name, reader, whole file."""
    pictures = {
        **{kind: picture(kind) for kind in ("png", "jpeg", "bmp", "tiff", "webp")},
        "palette": picture("png", "P"),
        "deflated": picture("tiff", compression="tiff_adobe_deflate"),
        "16 bit": picture("tiff", "I;16"),
        "float": picture("tiff", "F"),
        "cmyk": picture("jpeg", "CMYK"),
    }
    tensors = {"w": np.arange(6, dtype=np.float32), "n": np.array(3)}
    packed = artifact.pack(artifact.Artifact(b"program", tensors, {"weights": ["w", "n"]}))
    return [
        *(("image", as_image, content) for content in pictures.values()),
        *(
            ("torch", as_torch, (GOLDENS / f"tiny_{kind}.pth").read_bytes())
            for kind in ("zip", "legacy")
        ),
        ("safetensors", as_safetensors, safetensors.numpy.save(tensors)),
        ("detector", as_detector, saved_arrays(place)),
        ("artifact", as_artifact, packed),
    ]


EDIT = st.tuples(
    st.floats(0, 1, exclude_max=True),
    st.sampled_from(["replace", "insert", "delete", "cut", "repeat"]),
    st.one_of(st.sampled_from(SPECIAL), st.binary(min_size=1, max_size=8)),
)


def edited(content: bytes, edits: list[tuple[float, str, bytes]]) -> bytes:
    for where, what, data in edits:
        at = int(where * len(content))
        if what == "replace":
            content = content[:at] + data + content[at + len(data) :]
        elif what == "insert":
            content = content[:at] + data + content[at:]
        elif what == "delete":
            content = content[:at] + content[at + len(data) :]
        elif what == "cut":
            content = content[:at]
        else:
            content = content[:at] + content[at : at + 50] * 2 + content[at + 50 :]
    return content


def fuzz(place: Path, number: int, examples: int) -> Counter[str]:
    """One round. Raises what a reader should not raise, with the edits that lead to it."""
    found, whole = Counter[str](), seeds(place)

    @seed(number)
    @settings(
        max_examples=examples,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.integers(0, len(whole) - 1), st.lists(EDIT, min_size=1, max_size=6))
    def one(which: int, edits: list[tuple[float, str, bytes]]) -> None:
        name, reader, content = whole[which]
        start = time.perf_counter()
        try:
            reader(edited(content, edits), place)
            found[f"{name}: read"] += 1
        except InputError:
            found[f"{name}: refused"] += 1
        assert time.perf_counter() - start < SECONDS

    one()
    return found


def limit_memory() -> None:
    """From now on more than `GIBIBYTES` above what there is can't be had."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * os.sysconf("SC_PAGE_SIZE") + GIBIBYTES * 2**30
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> None:
    import tempfile
    import warnings

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    options = parser.parse_args()
    warnings.simplefilter("ignore")  # Pillow's, of odd files
    limit_memory()
    total, number, end = Counter[str](), 0, time.monotonic() + 60 * options.minutes
    with tempfile.TemporaryDirectory() as folder:
        while time.monotonic() < end:
            total += fuzz(Path(folder), number, 1000)
            number += 1
    print(f"{sum(total.values())} files, no find: {dict(sorted(total.items()))}")


if __name__ == "__main__":
    main()
