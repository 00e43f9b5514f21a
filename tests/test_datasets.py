"""The data sets on made-up folders, and one clear error for each thing that can be wrong."""

from __future__ import annotations

import importlib.util
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pfm_jax import datasets
from pfm_jax.datasets import elpv, images, mvtec_ad
from pfm_jax.types import InputError
from tests.synthetic import make_category, png, texture


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with two categories."""
    for seed, name in enumerate(("grid", "tile")):
        make_category(tmp_path / "data" / name, seed=1000 * seed)
    return tmp_path / "data"


@pytest.mark.parametrize("dataset", ["mvtec_ad", "folder"])
def test_both_readers_give_what_lies_in_the_folder(dataset: str, root: Path, cache: Path) -> None:
    assert datasets.categories(dataset, root, "all", cache) == ["grid", "tile"]
    found = datasets.load(dataset, root, "tile", cache)
    assert (len(found.train), len(found.test), found.has_masks) == (6, 7, True)
    assert [example.path for example in found.train] == [
        f"train/good/{i:03d}.png" for i in range(6)
    ]
    assert [(example.label, example.defect) for example in found.test] == [(0, "good")] * 3 + [
        (1, "hole")
    ] * 4
    for example in (*found.train, *found.test):
        assert example.image == (root / "tile" / example.path).read_bytes()
        assert (example.mask is None) == (example.label == 0)
    masks = images.masks(found.test, 64)
    assert masks.sum((1, 2)).tolist() == [0] * 3 + [400] * 4


def test_fingerprint_follows_content_alone(root: Path, tmp_path: Path, cache: Path) -> None:
    before = datasets.load("mvtec_ad", root, "grid", cache).fingerprint
    moved = shutil.copytree(root, tmp_path / "elsewhere")
    assert datasets.load("folder", moved, "grid", cache).fingerprint == before
    (moved / "grid" / "train" / "good" / "000.png").write_bytes(png(texture(77)))
    changed = datasets.load("mvtec_ad", moved, "grid", cache)
    assert changed.fingerprint != before
    assert changed.train[0].image == png(texture(77))


def test_archive_as_downloaded(root: Path, tmp_path: Path, cache: Path) -> None:
    archive = tmp_path / "mvtec_anomaly_detection.tar.xz"
    with tarfile.open(archive, "w:xz") as tar:
        for category in ("grid", "tile"):
            tar.add(root / category, category)
    assert datasets.categories("mvtec_ad", archive, "all", cache) == ["grid", "tile"]
    ours = datasets.load("mvtec_ad", archive, "grid", cache)
    assert ours.fingerprint == datasets.load("mvtec_ad", root, "grid", cache).fingerprint
    archive.write_bytes(archive.read_bytes()[:2000])
    with pytest.raises(InputError, match="can't be unpacked"):
        datasets.categories("mvtec_ad", archive, "all", cache)
    assert len(list((cache / "unpacked").iterdir())) == 1


def test_fingerprint_knows_the_split(root: Path, cache: Path) -> None:
    before = datasets.load("folder", root, "grid", cache).fingerprint
    good = root / "grid"
    (good / "train" / "good" / "005.png").rename(good / "test" / "good" / "005.png")
    assert datasets.load("folder", root, "grid", cache).fingerprint != before


def test_names_of_btad(root: Path, cache: Path) -> None:
    grid = root / "grid"
    (grid / "train" / "good").rename(grid / "train" / "ok")
    (grid / "test" / "good").rename(grid / "test" / "ok")
    for mask in sorted((grid / "ground_truth" / "hole").iterdir()):
        mask.rename(mask.with_name(mask.name.replace("_mask", "")))
    for kind in ("test", "ground_truth"):
        (grid / kind / "hole").rename(grid / kind / "ko")
    found = datasets.load("mvtec_ad", root, "grid", cache)
    assert {example.defect for example in found.test} == {"good", "ko"}
    assert (len(found.train), len(found.test), found.has_masks) == (6, 7, True)


@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "mixed"])
def test_builder_gives_decoded_arrays_to_any_user_of_tfds(
    channels: int, root: Path, cache: Path
) -> None:
    good = root / "grid" / "train" / "good"
    for index, path in enumerate(sorted((root / "grid").glob("*/*/[0-9]??.png"))):
        if channels == 1 or index % 2:
            path.write_bytes(png(texture(index)[..., 0]))
    builder = mvtec_ad.MvtecAd(root=root / "grid", data_dir=cache, file_format="array_record")
    builder.download_and_prepare()
    source = builder.as_data_source()
    assert source["train"][0]["image"].shape == (64, 64, channels)
    first = datasets.load("mvtec_ad", root, "grid", cache).train[0]
    decoded = np.asarray(images.open_rgb(first.image, "first"))
    original = images.open_rgb((good / "000.png").read_bytes(), "original")
    np.testing.assert_array_equal(decoded, np.asarray(original))


def test_masks_are_optional_in_a_plain_folder_only(root: Path, cache: Path) -> None:
    shutil.rmtree(root / "grid" / "ground_truth")
    found = datasets.load("folder", root, "grid", cache)
    assert not found.has_masks
    assert all(example.mask is None for example in found.test)
    with pytest.raises(InputError, match=r"000\.png: no mask for it \(and 3 others\)"):
        datasets.load("mvtec_ad", root, "grid", cache)


def remove_one_mask(root: Path) -> None:
    (root / "ground_truth" / "hole" / "002_mask.png").unlink()


def remove_training_images(root: Path) -> None:
    shutil.rmtree(root / "train" / "good")
    (root / "train" / "good").mkdir()


def remove_good_test_images(root: Path) -> None:
    shutil.rmtree(root / "test" / "good")


def remove_bad_test_images(root: Path) -> None:
    shutil.rmtree(root / "test" / "hole")


def shrink_a_mask(root: Path) -> None:
    mask = np.ones((32, 64), np.uint8)
    (root / "ground_truth" / "hole" / "001_mask.png").write_bytes(png(mask))


def turn_an_image(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    path = root / "test" / "hole" / "000.png"
    with Image.open(path) as image:
        image.load()
    image.save(path, exif=exif)


def spoil_an_image(root: Path) -> None:
    (root / "test" / "good" / "001.png").write_bytes(b"not an image")


@pytest.mark.parametrize("dataset", ["mvtec_ad", "folder"])
@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (shrink_a_mask, r"hole/001\.png is \(64, 64\) .* its mask \(64, 32\); make the mask fit"),
        (turn_an_image, r"hole/000\.png: EXIF says it is to be turned"),
        (spoil_an_image, r"test/good/001\.png: not a readable image"),
        (remove_one_mask, r"test/hole/002\.png: no mask for it .*hole/002_mask\.png"),
        (remove_training_images, "train/good: no images to learn from"),
        (remove_good_test_images, "test: no good images"),
        (remove_bad_test_images, "test: no anomalous images"),
    ],
)
def test_what_is_missing_is_named(dataset, harm, message, root: Path, cache: Path) -> None:
    harm(root / "grid")
    with pytest.raises(InputError, match=message):
        datasets.load(dataset, root, "grid", cache)


@pytest.mark.parametrize(
    ("dataset", "place", "category", "message"),
    [
        ("mvtec_ad", "data", "screw", "category=screw: not among grid, tile"),
        ("mvtec_ad", "nowhere", "all", "data_dir=.*nowhere: no such folder"),
        ("mvtec_ad", "data/grid", "all", "no category below it"),
        ("mvtec_ad", None, "all", "data_dir is not set"),
        ("imagenet", "data", "all", "must be one of"),
    ],
)
def test_wrong_place(dataset, place, category, message, root: Path, cache: Path) -> None:
    place = place and root.parent / place
    with pytest.raises(InputError, match=message):
        datasets.categories(dataset, place, category, cache)


@pytest.mark.skipif(not importlib.util.find_spec("elpv_dataset"), reason="elpv-dataset is absent")
def test_elpv_protocol() -> None:
    found = elpv.load()
    labels = [entry.label for entry in found.test.entries]
    assert (len(found.train), labels.count(0), labels.count(1)) == (1131, 377, 715)
    files = [entry.image for part in (found.train, found.test) for entry in part.entries]
    assert len(set(files)) == len(files)
    assert not found.has_masks
