"""The data sets on made-up folders, and one clear error for each thing that can be wrong."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import itertools
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from pfm_jax import datasets
from pfm_jax.datasets import btad, decoding, elpv, images, tfds_builder
from pfm_jax.system import files
from pfm_jax.types import InputError
from tests.synthetic import make_category, png, texture


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A folder with two categories."""
    for seed, name in enumerate(("grid", "tile")):
        make_category(tmp_path / "data" / name, seed=1000 * seed)
    return tmp_path / "data"


@pytest.mark.parametrize("dataset", ["mvtec_ad", "folder"])
def test_both_readers_give_what_lies_in_the_folder(dataset: str, root: Path) -> None:
    assert datasets.categories(dataset, root, "all") == ["grid", "tile"]
    found = datasets.load(dataset, root, "tile")
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


def test_fingerprint_follows_content_alone(root: Path, tmp_path: Path) -> None:
    before = datasets.load("mvtec_ad", root, "grid").fingerprint
    moved = shutil.copytree(root, tmp_path / "elsewhere")
    assert datasets.load("folder", moved, "grid").fingerprint == before
    (moved / "grid" / "train" / "good" / "000.png").write_bytes(png(texture(77)))
    changed = datasets.load("mvtec_ad", moved, "grid")
    assert changed.fingerprint != before
    assert changed.train[0].image == png(texture(77))


def test_fingerprints_are_of_label_path_and_content(tmp_path: Path) -> None:
    """sha256 over label, path and sha256 of each file, in order; normal and test images apart."""
    root = make_category(tmp_path / "data" / "grid")
    found = datasets.load("mvtec_ad", root.parent, "grid")
    for examples, fingerprint in (
        (found.train, found.fingerprint),
        (found.test, found.test_fingerprint),
    ):
        digest = hashlib.sha256()
        for example in examples:
            paths = [example.path]
            if example.label:
                paths.append(f"ground_truth/hole/{Path(example.path).stem}_mask.png")
            for path in paths:
                digest.update(f"{example.label}\0{path}\0".encode())
                digest.update(hashlib.sha256((root / path).read_bytes()).digest())
        assert fingerprint == digest.hexdigest()


def test_all_faults_are_listed(root: Path) -> None:
    """Up to twenty, and how many there are; a single one stands alone."""
    for index in range(30):
        (root / "grid" / "train" / "good" / f"1{index:02d}.png").write_bytes(b"not an image")
    with pytest.raises(InputError) as told:
        datasets.load("mvtec_ad", root, "grid")
    lines = str(told.value).splitlines()
    assert lines[0].endswith("grid: 30 files are faulty:") and lines[-1] == "and 10 more"
    assert [line for line in lines if "not a readable image" in line] == lines[1:-1]
    assert len(lines) == 22


def test_archive_as_downloaded(root: Path, tmp_path: Path, cache: Path) -> None:
    archive = tmp_path / "mvtec_anomaly_detection.tar.xz"
    with tarfile.open(archive, "w:xz") as tar:
        for category in ("grid", "tile"):
            tar.add(root / category, category)
    assert datasets.categories("mvtec_ad", archive, "all") == ["grid", "tile"]
    ours = datasets.load("mvtec_ad", archive, "grid")
    assert ours.fingerprint == datasets.load("mvtec_ad", root, "grid").fingerprint
    archive.write_bytes(archive.read_bytes()[:2000])
    with pytest.raises(InputError, match="can't be unpacked"):
        datasets.categories("mvtec_ad", archive, "all")
    assert len(list((cache / "unpacked").iterdir())) == 1


def test_fingerprint_knows_the_split(root: Path) -> None:
    before = datasets.load("folder", root, "grid").fingerprint
    good = root / "grid"
    (good / "train" / "good" / "005.png").rename(good / "test" / "good" / "005.png")
    assert datasets.load("folder", root, "grid").fingerprint != before


def test_names_of_btad(root: Path) -> None:
    grid = root / "grid"
    (grid / "train" / "good").rename(grid / "train" / "ok")
    (grid / "test" / "good").rename(grid / "test" / "ok")
    for mask in sorted((grid / "ground_truth" / "hole").iterdir()):
        mask.rename(mask.with_name(mask.name.replace("_mask", "")))
    for kind in ("test", "ground_truth"):
        (grid / kind / "hole").rename(grid / kind / "ko")
    found = datasets.load("mvtec_ad", root, "grid")
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
    builder = tfds_builder.MvtecAd(root=root / "grid", data_dir=cache, file_format="array_record")
    builder.download_and_prepare()
    first = builder.as_data_source()["train"][0]
    assert first["image"].shape == (64, 64, channels)
    original = np.asarray(decoding.decode((good / "000.png").read_bytes(), "original").image)
    np.testing.assert_array_equal(np.broadcast_to(first["image"], original.shape), original)


def test_the_builder_is_found_by_its_name(root: Path, cache: Path) -> None:
    arguments = {"root": root / "grid", "file_format": "array_record"}
    found = tfds.data_source("mvtec_ad", data_dir=cache, builder_kwargs=arguments)
    ours = datasets.load("mvtec_ad", root, "grid")
    for split, examples in (("train", ours.train), ("test", ours.test)):
        assert [record["path"].decode() for record in found[split]] == [e.path for e in examples]
        assert [record["label"] for record in found[split]] == [e.label for e in examples]


def test_masks_are_optional_in_a_plain_folder_only(root: Path) -> None:
    shutil.rmtree(root / "grid" / "ground_truth")
    found = datasets.load("folder", root, "grid")
    assert not found.has_masks
    assert all(example.mask is None for example in found.test)
    with pytest.raises(
        InputError,
        match=r"000\.png \(and 3 more\): no mask; expected .*/000_mask\.png",
    ):
        datasets.load("mvtec_ad", root, "grid")


def remove_one_mask(root: Path) -> None:
    (root / "ground_truth" / "hole" / "002_mask.png").unlink()


def remove_training_images(root: Path) -> None:
    shutil.rmtree(root / "train" / "good")
    (root / "train" / "good").mkdir()


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
        (shrink_a_mask, r"hole/001\.png: is 64x64 pixels, its mask 64x32; resize the mask"),
        (turn_an_image, r"hole/000\.png: EXIF says it is rotated"),
        (spoil_an_image, r"test/good/001\.png: not a readable image"),
        (remove_one_mask, r"test/hole/002\.png: no mask; expected .*/hole/002_mask\.png"),
        (remove_training_images, "train/good: no training images"),
        (
            remove_bad_test_images,
            r"hole/000_mask\.png: a mask of no test image; none in",
        ),
    ],
)
def test_what_is_missing_is_named(dataset, harm, message, root: Path) -> None:
    harm(root / "grid")
    with pytest.raises(InputError, match=message):
        datasets.load(dataset, root, "grid")


@pytest.mark.parametrize(
    ("dataset", "place", "category", "message"),
    [
        ("mvtec_ad", "data", "screw", "category=screw: unknown; available: grid, tile"),
        ("mvtec_ad", "nowhere", "all", "data_dir=.*nowhere: no such folder"),
        ("mvtec_ad", "data/grid/test", "all", "contains no category"),
        ("mvtec_ad", None, "all", "data_dir is not set"),
        ("imagenet", "data", "all", "must be one of"),
    ],
)
def test_wrong_place(dataset, place, category, message, root: Path) -> None:
    place = place and root.parent / place
    with pytest.raises(InputError, match=message):
        datasets.categories(dataset, place, category)


@pytest.mark.skipif(not importlib.util.find_spec("elpv_dataset"), reason="elpv-dataset is absent")
def test_elpv_protocol() -> None:
    found = datasets.load("elpv", None, elpv.CATEGORY)
    assert datasets.categories("elpv", None) == ["solar_cells"]
    labels = [example.label for example in found.test]
    assert (len(found.train), labels.count(0), labels.count(1)) == (1131, 377, 715)
    paths = [example.path for part in (found.train, found.test) for example in part]
    assert len(set(paths)) == len(paths)
    assert not found.has_masks


def make_tiles(root: Path) -> Path:
    """Magnetic tiles as published: sizes vary, JPEG images, PNG masks beside them."""
    for kind, count in (("Free", 10), ("Blowhole", 2), ("Crack", 1)):
        folder = root / f"MT_{kind}" / "Imgs"
        folder.mkdir(parents=True)
        for index in range(count):
            image = texture(index, 64)[: 40 + index, :, 0]
            Image.fromarray(image).save(folder / f"exp{index}.jpg")
            mask = np.zeros(image.shape, np.uint8)
            mask[5:9, 5:9] = 0 if kind == "Free" else 255
            (folder / f"exp{index}.png").write_bytes(png(mask))
    return root


def test_magnetic_tiles(tmp_path: Path) -> None:
    root = make_tiles(tmp_path / "tiles")
    assert datasets.categories("mtd", root, "all") == ["magnetic_tile"]
    found = datasets.load("mtd", root, "magnetic_tile")
    assert (len(found.train), len(found.test)) == (8, 5)
    assert [e.defect for e in found.test] == ["good"] * 2 + ["blowhole"] * 2 + ["crack"]
    assert images.masks(found.test, 64).any((1, 2)).tolist() == [False] * 2 + [True] * 3
    learnt = {example.path for example in found.train}
    assert not learnt & {example.path for example in found.test}
    assert learnt == {e.path for e in datasets.load("mtd", root, "magnetic_tile").train}
    (root / "train.txt").write_text("exp3.jpg\nexp5.jpg\n\n")
    listed = datasets.load("mtd", root, "magnetic_tile")
    assert [e.path for e in listed.train] == [f"MT_Free/Imgs/exp{i}.jpg" for i in (3, 5)]
    assert sum(e.label == 0 for e in listed.test) == 8
    (root / "train.txt").write_text("exp99.jpg\n")
    with pytest.raises(InputError, match=r"train\.txt: exp99\.jpg is not in MT_Free"):
        datasets.load("mtd", root, "magnetic_tile")
    (root / "train.txt").unlink()
    (root / "MT_Crack" / "Imgs" / "exp0.png").unlink()
    with pytest.raises(InputError, match=r"exp0\.jpg: no mask; expected"):
        datasets.load("mtd", root, "magnetic_tile")


def make_visa(root: Path) -> Path:
    """Two categories of VisA; masks hold small numbers, one for each kind of defect."""
    lines = ["object,split,label,image,mask"]
    for name in ("candle", "pcb1"):
        for kind in ("Normal", "Anomaly"):
            (root / name / "Data" / "Images" / kind).mkdir(parents=True)
        (root / name / "Data" / "Masks" / "Anomaly").mkdir(parents=True)
        for index in range(5):
            path = f"{name}/Data/Images/Normal/{index:03d}.JPG"
            Image.fromarray(texture(index)).save(root / path, "jpeg")
            lines.append(f"{name},{'train' if index < 3 else 'test'},normal,{path},")
        path = f"{name}/Data/Images/Anomaly/000.JPG"
        mask = f"{name}/Data/Masks/Anomaly/000.png"
        Image.fromarray(texture(9)).save(root / path, "jpeg")
        values = np.zeros((64, 64), np.uint8)
        values[3:7, 2:9] = 2
        (root / mask).write_bytes(png(values))
        lines.append(f"{name},test,anomaly,{path},{mask}")
    (root / "split_csv").mkdir()
    (root / "split_csv" / "1cls.csv").write_text("\n".join(lines) + "\n")
    return root


def test_visa_follows_its_split(tmp_path: Path) -> None:
    root = make_visa(tmp_path / "VisA")
    assert datasets.categories("visa", root, "all") == ["candle", "pcb1"]
    found = datasets.load("visa", root, "pcb1")
    assert [e.path for e in found.train] == [
        f"pcb1/Data/Images/Normal/{i:03d}.JPG" for i in range(3)
    ]
    assert [e.label for e in found.test] == [0, 0, 1]
    assert images.masks(found.test, 64).sum((1, 2)).tolist() == [0, 0, 28]
    with pytest.raises(InputError, match=r"category=candel: .* did you mean candle"):
        datasets.categories("visa", root, "candel")
    (root / "pcb1/Data/Images/Normal/001.JPG").unlink()
    with pytest.raises(InputError, match=r"001\.JPG: No such file"):
        datasets.load("visa", root, "pcb1")
    (root / "split_csv/1cls.csv").write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match="must have the columns object, split"):
        datasets.load("visa", root, "pcb1")


@pytest.mark.parametrize("right", [True, False])
def test_btad_is_downloaded_checked_and_unpacked(
    right: bool, root: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an address of ours: a zip with the folder inside, `ok` and `ko` for good and bad."""
    place = tmp_path / "zip" / "BTech_Dataset_transformed"
    shutil.copytree(root / "grid", place / "01")
    for split in ("train", "test"):
        (place / "01" / split / "good").rename(place / "01" / split / "ok")
    (place / "01" / "test" / "hole").rename(place / "01" / "test" / "ko")
    (place / "01" / "ground_truth" / "hole").rename(place / "01" / "ground_truth" / "ko")
    made = Path(shutil.make_archive(str(tmp_path / "btad"), "zip", tmp_path / "zip"))
    digest = hashlib.sha256(made.read_bytes()).hexdigest()
    monkeypatch.setattr(btad, "URL", made.as_uri())
    monkeypatch.setattr(btad, "SHA256", digest if right else "0" * 64)
    if right:
        assert datasets.categories("btad", None, "all") == ["01"]
        found = datasets.load("btad", None, "01")
        assert [e.label for e in found.test] == [1] * 4 + [0] * 3
        assert images.masks(found.test, 64).any((1, 2)).tolist() == [True] * 4 + [False] * 3
    else:
        with pytest.raises(InputError, match=r"sha256 is .* set --data_dir to it"):
            datasets.categories("btad", None, "all")
        assert not list((cache / "downloads").iterdir())


@pytest.mark.parametrize("name", datasets.NAMES)
def test_every_data_set_is_a_module_with_the_same_functions(name: str) -> None:
    module = importlib.import_module(f"pfm_jax.datasets.{name}")
    for function, parameters in (
        ("locate", ["data_dir"]),
        ("categories", ["root"]),
        ("load", ["root", "category", "value_range"]),
    ):
        assert list(inspect.signature(getattr(module, function)).parameters) == parameters


def test_the_cache_is_where_the_environment_says(root: Path, cache: Path) -> None:
    assert files.cache_dir() == cache
    datasets.load("mvtec_ad", str(root), "grid")
    assert not cache.exists()
    archive = shutil.make_archive(str(root), "zip", root)
    datasets.load("mvtec_ad", archive, "grid")
    assert [path.name for path in cache.iterdir()] == ["unpacked"]


def test_more_shots_of_a_seed_include_fewer(root: Path) -> None:
    train = datasets.load("mvtec_ad", root, "grid").train
    drawn = [[e.path for e in datasets.draw_shots(train, k, seed=1)] for k in range(1, 7)]
    for count, (fewer, more) in enumerate(itertools.pairwise(drawn), 1):
        assert len(fewer) == count
        assert set(fewer) < set(more)
        assert more == sorted(more)
    assert datasets.draw_shots(train, 0, seed=1) is train
    assert len({datasets.draw_shots(train, 1, seed)[0].path for seed in range(40)}) == 6
    with pytest.raises(
        InputError, match="shots=7: must be at most 6, the number of training images"
    ):
        datasets.draw_shots(train, 7, seed=1)


def test_united_categories(root: Path) -> None:
    parts = [datasets.load("mvtec_ad", root, name) for name in ("grid", "tile")]
    found = datasets.united("both", parts)
    paths = [f"{name}/train/good/{i:03d}.png" for name in ("grid", "tile") for i in range(6)]
    assert [example.path for example in found.train] == paths
    assert [e.image for e in found.train] == [(root / path).read_bytes() for path in paths]
    assert found.fingerprint != datasets.united("both", parts[::-1]).fingerprint
