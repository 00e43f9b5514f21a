"""Folders as they come from the field: read rightly, or refused in one clear sentence."""

from __future__ import annotations

import io
import shutil
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pfm_jax import datasets
from pfm_jax.datasets import images
from pfm_jax.types import Dataset, InputError
from tests.synthetic import make_category, png, texture

PICTURE = png(texture(500))


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    """A category of 6 training images, 3 good and 4 anomalous test images."""
    return make_category(tmp_path / "data" / "grid")


def load(grid: Path, dataset: str = "folder") -> Dataset:
    return datasets.load(dataset, grid.parent, grid.name)


def counts(found: Dataset) -> tuple[int, int, bool]:
    return len(found.train), len(found.test), found.has_masks


def marked(found: Dataset) -> list[int]:
    return images.masks(found.test, 64).sum((1, 2)).tolist()


def jpeg(array: np.ndarray, **options: object) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, "jpeg", **options)
    return buffer.getvalue()


def test_hidden_names_are_passed_over_and_counted(grid: Path) -> None:
    before = load(grid)
    for place in ("train/good", "test/good", "test/hole", "ground_truth/hole"):
        (grid / place / "._000.png").write_bytes(b"\0\5\x16\7")
        (grid / place / ".ipynb_checkpoints").mkdir()
        (grid / place / ".ipynb_checkpoints" / "000-checkpoint.png").write_bytes(PICTURE)
    (grid / "test" / ".ipynb_checkpoints").mkdir()
    (grid / "test" / ".ipynb_checkpoints" / "000-checkpoint.png").write_bytes(PICTURE)
    (grid / "test" / "hole" / "notes.txt").write_text("no image")
    found = load(grid)
    assert found.warnings == (f"{grid}: 10 files passed over: 9 hidden, 1 not an image",)
    assert counts(found) == counts(before) == (6, 7, True)
    assert (found.fingerprint, found.test_fingerprint) == (
        before.fingerprint,
        before.test_fingerprint,
    )


@pytest.mark.parametrize("name", ["@eaDir/1.png", "$RECYCLE.BIN", "lost+found", "__MACOSX"])
def test_what_systems_leave_is_hidden(name: str, grid: Path) -> None:
    (grid / "train" / "good" / name).mkdir(parents=True)
    (grid / "train" / "good" / name / "THUMB.jpg").write_bytes(PICTURE)
    found = load(grid)
    assert counts(found) == (6, 7, True) and "1 hidden" in found.warnings[0]


def test_predictions_are_no_images(grid: Path) -> None:
    (grid / "train" / "good" / "out" / "masks").mkdir(parents=True)
    (grid / "train" / "good" / "out" / "masks" / "0.png").write_bytes(PICTURE)
    (grid / "train" / "good" / "out" / "predict.json").write_text("{}")
    found = load(grid)
    assert counts(found) == (6, 7, True) and "1 in the output folder" in found.warnings[0]


def test_images_outside_the_layout_are_counted(grid: Path) -> None:
    (grid / "train" / "hole").mkdir()
    for place in ("train/hole/0.png", "train/0.png", "test/0.png", "0.png"):
        (grid / place).write_bytes(PICTURE)
    found = load(grid)
    assert counts(found) == (6, 7, True)
    assert found.warnings[0].startswith(f"{grid}: 4 files passed over: 4 in none of train/good,")


def test_the_case_of_suffixes_and_of_good_never_matters(grid: Path) -> None:
    for path in [*grid.rglob("*.png")]:
        path.rename(path.with_suffix(".PNG"))
    for split in ("train", "test"):
        (grid / split / "good").rename(grid / split / "Good")
        (grid / split).rename(grid / split.title())
    (grid / "ground_truth").rename(grid / "Ground_Truth")
    found = load(grid, "mvtec_ad")
    assert counts(found) == (6, 7, True)
    assert sorted(example.label for example in found.test) == [0] * 3 + [1] * 4


def test_subfolders_are_entered_everywhere(grid: Path) -> None:
    before = load(grid)
    expected = sorted(marked(before))
    for place in ("train/good", "test/good", "test/hole", "ground_truth/hole"):
        deeper = grid / place / "day 1" / "left"
        deeper.mkdir(parents=True)
        for path in sorted((grid / place).glob("*.png"))[::2]:
            path.rename(deeper / path.name)
    found = load(grid, "mvtec_ad")
    assert counts(found) == counts(before)
    assert found.warnings == (
        f"{grid}: images in these folders count as good: test/good/day 1, train/good/day 1",
    )
    assert {example.defect for example in found.test} == {"good", "hole"}
    assert sorted(marked(found)) == expected


def test_linked_folders_are_entered_once(grid: Path) -> None:
    """And none that leads back up, or to what is entered anyway: nothing is held out twice."""
    elsewhere = grid.parent.parent / "elsewhere"
    shutil.move(grid / "train" / "good", elsewhere)
    (grid / "train" / "good").symlink_to(elsewhere)
    (elsewhere / "a").mkdir()
    (elsewhere / "000.png").rename(elsewhere / "a" / "000.png")
    (elsewhere / "0").symlink_to(elsewhere / "a")
    (elsewhere / "up").symlink_to(grid)
    (elsewhere / "root").symlink_to("/")
    found = load(grid)
    assert counts(found) == (6, 7, True)
    assert "3 a link to a folder that is entered anyway" in found.warnings[0]


@pytest.mark.parametrize("name", ["{}", "{}_mask", "{}_gt", "mask_{}", "{}/left", "{}/{}"])
@pytest.mark.parametrize("suffix", [".png", ".TIFF"])
def test_masks_are_found_by_every_usual_name(name: str, suffix: str, grid: Path) -> None:
    expected = marked(load(grid))
    for path in sorted((grid / "ground_truth" / "hole").glob("*.png")):
        stem = path.stem.removesuffix("_mask")
        to = path.parent / (name.format(stem, stem) + suffix)
        to.parent.mkdir(exist_ok=True)
        with Image.open(path) as image:
            image.save(to)
        if to != path:
            path.unlink()
    assert marked(load(grid, "mvtec_ad")) == expected


def test_several_masks_in_a_folder_of_the_image_are_united(grid: Path) -> None:
    path = grid / "ground_truth" / "hole" / "001_mask.png"
    whole = np.asarray(Image.open(path))
    path.unlink()
    (grid / "ground_truth" / "hole" / "001").mkdir()
    for index, columns in enumerate((slice(0, 20), slice(15, 64))):
        part = np.zeros_like(whole)
        part[:, columns] = whole[:, columns]
        (path.parent / "001" / f"{index}.png").write_bytes(png(part))
    found = load(grid, "mvtec_ad")
    np.testing.assert_array_equal(images.decode_mask(found.test[4], 64), whole > 0)


def test_masks_that_match_nothing_are_an_error(grid: Path) -> None:
    mask = grid / "ground_truth" / "hole" / "002_mask.png"
    mask.rename(mask.with_name("002_label.png"))
    with pytest.raises(InputError, match=r"hole/002_label\.png: a mask of no test image; none in"):
        load(grid)
    mask.with_name("002_label.png").rename(mask)
    mask.with_name("002_gt.png").write_bytes(mask.read_bytes())
    with pytest.raises(InputError, match=r"002_gt\.png: .*002\.png has another mask, .*keep one"):
        load(grid)


def test_masks_of_good_images_must_be_empty(grid: Path) -> None:
    (grid / "ground_truth" / "good").mkdir()
    mask = np.zeros((64, 64), np.uint8)
    path = grid / "ground_truth" / "good" / "000_mask.png"
    path.write_bytes(png(mask))
    assert counts(load(grid, "mvtec_ad")) == (6, 7, True)
    mask[3, 3] = 255
    path.write_bytes(png(mask))
    with pytest.raises(InputError, match=r"good/000_mask\.png: marks a defect, but .*good image"):
        load(grid)


def test_an_image_and_its_mask_may_be_spelt_otherwise(grid: Path) -> None:
    """`ok` and `good`, and accents as Linux and as Macs write them."""
    (grid / "test" / "good").rename(grid / "test" / "ok")
    (grid / "ground_truth" / "good").mkdir()
    blank = png(np.zeros((64, 64), np.uint8))
    (grid / "ground_truth" / "good" / "000_mask.png").write_bytes(blank)
    image, mask = (
        grid / "test" / "hole" / "000.png",
        grid / "ground_truth" / "hole" / "000_mask.png",
    )
    image.rename(image.with_name(unicodedata.normalize("NFD", "café.png")))
    mask.rename(mask.with_name(unicodedata.normalize("NFC", "café_mask.png")))
    assert counts(load(grid, "mvtec_ad")) == (6, 7, True)


def test_transparent_pixels_of_a_mask_mark_nothing(grid: Path) -> None:
    path = grid / "ground_truth" / "hole" / "001_mask.png"
    expected = np.asarray(Image.open(path)) > 0
    white = np.full((64, 64, 3), 255, np.uint8)
    path.write_bytes(png(np.dstack([white, 255 * expected.astype(np.uint8)])))
    found = load(grid, "mvtec_ad")
    np.testing.assert_array_equal(images.decode_mask(found.test[4], 64), expected)
    path.write_bytes(png(white[..., 0]))
    assert load(grid).warnings == (f"{path}: marks every pixel",)


def test_masks_to_be_doubted_are_named(grid: Path) -> None:
    folder = grid / "ground_truth" / "hole"
    expected = marked(load(grid))
    lossy = jpeg(np.asarray(Image.open(folder / "000_mask.png")), quality=60)
    (folder / "000_mask.png").unlink()
    (folder / "000_mask.jpg").write_bytes(lossy)
    (folder / "001_mask.png").write_bytes(png(np.zeros((64, 64), np.uint8)))
    found = load(grid, "mvtec_ad")
    lines = "\n".join(found.warnings)
    assert "000_mask.jpg: has " in lines and "the upper half marks a defect" in lines
    assert f"{folder}/001_mask.png: marks no pixel, though its image is anomalous" in lines
    assert len(found.warnings) == 2
    np.testing.assert_allclose(marked(found), [*expected[:4], 0, *expected[5:]], atol=8)


@pytest.mark.parametrize("orientation", range(10))
def test_only_orientations_2_to_8_turn_a_picture(orientation: int, grid: Path) -> None:
    path = grid / "test" / "hole" / "000.png"
    exif = Image.Exif()
    exif[0x0112] = orientation
    with Image.open(path) as image:
        image.load()
    image.save(path, exif=exif)
    if 2 <= orientation <= 8:
        with pytest.raises(InputError, match="EXIF says it is rotated"):
            load(grid)
    else:
        assert counts(load(grid)) == (6, 7, True)


def test_archives_with_one_folder_at_the_top(grid: Path, tmp_path: Path, cache: Path) -> None:
    archive, broken = tmp_path / "top.zip", tmp_path / "broken.zip"
    files = {path.relative_to(grid.parent): path for path in grid.rglob("*.png")}
    for place, harmed in ((archive, None), (broken, "grid/test/good/001.png")):
        with zipfile.ZipFile(place, "w") as file:
            file.writestr("__MACOSX/parts/grid/train/good/._000.png", b"\0\5\x16\7")
            for name, path in files.items():
                content = b"torn" if str(name) == harmed else path.read_bytes()
                file.writestr(f"parts/{name}", content)
    assert datasets.categories("mvtec_ad", archive) == ["grid"]
    assert counts(datasets.load("mvtec_ad", archive, "grid")) == (6, 7, True)
    with pytest.raises(InputError, match=r"broken\.zip/parts/grid/test/good/001\.png") as told:
        datasets.load("mvtec_ad", broken, "grid")
    assert str(cache) not in str(told.value)


def test_an_archive_without_a_folder_is_called_by_its_own_name(
    grid: Path, tmp_path: Path, cache: Path
) -> None:
    archive = Path(shutil.make_archive(str(tmp_path / "screw"), "zip", grid))
    assert datasets.categories("mvtec_ad", archive) == ["screw"]
    assert counts(datasets.load("mvtec_ad", archive, "screw")) == (6, 7, True)


def test_other_files_and_folders_beside_categories(
    grid: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (grid.parent / "README.txt").write_text("about")
    assert datasets.categories("mvtec_ad", grid.parent.parent) == ["grid"]
    (grid.parent / "tile" / "train" / "images").mkdir(parents=True)
    assert datasets.categories("mvtec_ad", grid.parent) == ["grid"]
    assert "no categories, without train/good: tile" in caplog.text


def test_a_folder_that_is_a_category(grid: Path) -> None:
    assert datasets.categories("mvtec_ad", grid) == ["grid"]
    assert load(grid).fingerprint == datasets.load("mvtec_ad", grid, "grid").fingerprint
    with pytest.raises(InputError, match="category=screw: unknown; available: grid"):
        datasets.categories("mvtec_ad", grid, "screw")


@pytest.mark.parametrize("layout", ["train/good", "."])
def test_good_images_only(layout: str, tmp_path: Path) -> None:
    folder = tmp_path / "widget" / layout
    folder.mkdir(parents=True)
    for index in range(5):
        (folder / f"{index}.png").write_bytes(png(texture(index)))
    for dataset in ("folder", "mvtec_ad"):
        assert datasets.categories(dataset, tmp_path / "widget") == ["widget"]
        found = datasets.load(dataset, tmp_path / "widget", "widget")
        assert counts(found) == (5, 0, False)
        (line,) = found.warnings
        assert "no good and no anomalous test images; AUROC, AP and PRO can't be measured" in line


def test_pictures_in_unknown_subfolders_are_no_training_images(tmp_path: Path) -> None:
    for name in ("0.png", "1.png", "broken/2.png"):
        (tmp_path / "widget" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "widget" / name).write_bytes(PICTURE)
    with pytest.raises(InputError, match="contains no category"):
        datasets.categories("mvtec_ad", tmp_path / "widget")


@pytest.mark.parametrize(
    ("missing", "line"),
    [("good", "no good test images; image AUROC"), ("hole", "no anomalous test images; AUROC")],
)
def test_test_images_of_one_kind(missing: str, line: str, grid: Path) -> None:
    shutil.rmtree(grid / "test" / missing)
    shutil.rmtree(grid / "ground_truth" / missing, ignore_errors=True)
    found = load(grid, "mvtec_ad")
    assert len(found.train) == 6 and found.test
    assert line in found.warnings[-1]
