"""Published data sets, each as a made-up folder of its layout, and their protocols."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from pfm_jax import datasets
from pfm_jax.datasets import images
from pfm_jax.types import Dataset, InputError, Saturation
from tests.synthetic import png, texture


def picture(path: Path, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(png(texture(seed, 32)))
    return path


def mask(path: Path, marked: slice = slice(4, 12), value: int = 255) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((32, 32), np.uint8)
    pixels[marked, marked] = value
    path.write_bytes(png(pixels))
    return path


NOTHING = slice(0, 0)


def kinds(found: Dataset) -> Counter[tuple[str, int]]:
    return Counter((example.defect, example.label) for example in found.test)


def make_loco(root: Path) -> Path:
    place = root / "breakfast_box"
    for index in range(4):
        picture(place / "train" / "good" / f"{index:03}.png", index)
        picture(place / "test" / "good" / f"{index:03}.png", 20 + index)
    for index in range(2):
        picture(place / "validation" / "good" / f"{index:03}.png", 10 + index)
        for kind in ("logical_anomalies", "structural_anomalies"):
            picture(place / "test" / kind / f"{index:03}.png", 30 + index)
            truth = place / "ground_truth" / kind / f"{index:03}"
            mask(truth / "000.png", value=255)
    mask(place / "ground_truth" / "logical_anomalies" / "000" / "001.png", slice(10, 30), 254)
    config = [
        {
            "defect_name": "missing",
            "pixel_value": 255,
            "saturation_threshold": 20,
            "relative_saturation": False,
        },
        {
            "defect_name": "swapped",
            "pixel_value": 254,
            "saturation_threshold": 0.5,
            "relative_saturation": True,
        },
    ]
    (place / "defects_config.json").write_text(json.dumps(config))
    return root


def test_mvtec_loco_holds_out_its_validation_and_keeps_regions_apart(tmp_path: Path) -> None:
    root = make_loco(tmp_path / "loco")
    assert datasets.categories("mvtec_loco", root) == ["breakfast_box"]
    found = datasets.load("mvtec_loco", root, "breakfast_box")
    assert (len(found.train), len(found.held_out), len(found.test)) == (4, 2, 8)
    assert [example.path for example in found.held_out] == [
        "validation/good/000.png",
        "validation/good/001.png",
    ]
    assert kinds(found)["logical_anomalies", 1] == kinds(found)["structural_anomalies", 1] == 2
    assert found.saturations == {255: Saturation(20, False), 254: Saturation(0.5, True)}
    two = next(example for example in found.test if len(example.regions) == 2)
    expected = np.zeros((32, 32), bool)
    expected[4:12, 4:12] = expected[10:30, 10:30] = True
    np.testing.assert_array_equal(images.decode_mask(two, 32), expected)
    odd = root / "breakfast_box" / "ground_truth" / "logical_anomalies" / "000" / "001.png"
    mask(odd, slice(10, 30), 200)
    with pytest.raises(InputError, match=r"001.png: has the value 200; must be one of 254, 255"):
        datasets.load("mvtec_loco", root, "breakfast_box")
    (root / "breakfast_box" / "defects_config.json").write_text("[{}]")
    with pytest.raises(InputError, match=r"defects_config.json: can't be read \(KeyError"):
        datasets.load("mvtec_loco", root, "breakfast_box")


def test_mvtec_ad_2_is_measured_on_its_public_test_images(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = tmp_path / "ad2" / "can"
    for index in range(3):
        picture(place / "train" / "good" / f"{index}_regular.png", index)
        picture(place / "validation" / "good" / f"{index}_regular.png", index)
        picture(place / "test_public" / "good" / f"{index}_regular.png", index)
        picture(place / "test_private" / f"{index}_regular.png", index)
        picture(place / "test_private_mixed" / f"{index}_mixed.png", index)
        picture(place / "test_public" / "bad" / f"{index}_overexposed.png", index)
        mask(place / "test_public" / "ground_truth" / "bad" / f"{index}_overexposed_mask.png")
    assert datasets.categories("mvtec_ad_2", tmp_path / "ad2") == ["can"]
    found = datasets.load("mvtec_ad_2", tmp_path / "ad2", "can")
    assert (len(found.train), len(found.held_out), len(found.test)) == (3, 3, 6)
    assert kinds(found) == {("good", 0): 3, ("bad", 1): 3}
    assert found.has_masks and "6 files passed over" in caplog.text
    mask(place / "test_public" / "ground_truth" / "bad" / "7_shift_mask.png")
    with pytest.raises(InputError, match=r"7_shift_mask.png: a mask of no test image; none in bad"):
        datasets.load("mvtec_ad_2", tmp_path / "ad2", "can")


def test_mpdd_is_in_the_layout_of_mvtec_ad(tmp_path: Path) -> None:
    place = tmp_path / "mpdd" / "tubes"
    picture(place / "train" / "good" / "000.png")
    picture(place / "test" / "good" / "000.png")
    image = picture(place / "test" / "anomalous" / "000.png")
    truth = mask(place / "ground_truth" / "anomalous" / "000_mask.png")
    found = datasets.load("mpdd", tmp_path / "mpdd", "tubes")
    assert kinds(found) == {("good", 0): 1, ("anomalous", 1): 1}
    truth.unlink()
    with pytest.raises(InputError, match=f"{image}: no mask; expected"):
        datasets.load("mpdd", tmp_path / "mpdd", "tubes")


def test_ksdd_judges_by_masks_and_draws_four_fifths_of_the_good(tmp_path: Path) -> None:
    for item in range(5):
        for part in range(3):
            name = tmp_path / f"kos0{item}" / f"Part{part}"
            picture(name.with_suffix(".jpg"), 3 * item + part)
            mask(name.with_name(f"{name.name}_label.bmp"), NOTHING if part else slice(4, 9))
    found = datasets.load("ksdd", tmp_path, "commutators")
    assert kinds(found) == {("good", 0): 2, ("crack", 1): 5}
    assert len(found.train) == 8 and not any(example.label for example in found.train)
    names = [example.path for example in (*found.train, *found.test)]
    assert len(set(names)) == 15 and not any("label" in name for name in names)
    again = datasets.load("ksdd", tmp_path, "commutators")
    assert [one.path for one in again.train] == [one.path for one in found.train]
    (tmp_path / "kos00" / "Part1_label.bmp").unlink()
    with pytest.raises(InputError, match=r"Part1.jpg: no mask; expected Part1_label"):
        datasets.load("ksdd", tmp_path, "commutators")


def test_ksdd2_leaves_defects_among_training_images_out_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for number, marked in ((10000, NOTHING), (10001, slice(3, 9)), (10002, NOTHING)):
        picture(tmp_path / "train" / f"{number}.png", number)
        mask(tmp_path / "train" / f"{number}_GT.png", marked)
    picture(tmp_path / "train" / "10000 (copy).png")
    mask(tmp_path / "train" / "10000_GT (copy).png", NOTHING)
    for number, marked in ((20000, NOTHING), (20001, slice(3, 9))):
        picture(tmp_path / "test" / f"{number}.png", number)
        mask(tmp_path / "test" / f"{number}_GT.png", marked)
    found = datasets.load("ksdd2", tmp_path, "surfaces")
    assert [one.path for one in found.train] == ["train/10000.png", "train/10002.png"]
    assert kinds(found) == {("good", 0): 1, ("defect", 1): 1}
    assert "3 files passed over: 2 a copy, 1 a defect among the training images" in caplog.text
    (tmp_path / "test" / "20001.png").unlink()
    with pytest.raises(InputError, match=r"20001_GT.png: a mask of no image called 20001"):
        datasets.load("ksdd2", tmp_path, "surfaces")


def make_real_iad(root: Path) -> Path:
    rows = {"train": [], "test": []}
    for index in range(4):
        name = f"OK/S000{index}/a_{index}.jpg"
        picture(root / "realiad_256" / "audiojack" / name, index)
        row = {"image_path": name, "mask_path": None, "anomaly_class": "OK"}
        rows["train" if index < 3 else "test"].append(row)
    name = "NG/QS/S0001/a_0_NG.jpg"
    picture(root / "realiad_256" / "audiojack" / name)
    mask(root / "realiad_256" / "audiojack" / name.replace(".jpg", ".png"))
    rows["test"].append(
        {"image_path": name, "mask_path": name.replace("jpg", "png"), "anomaly_class": "QS"}
    )
    meta = {"normal_class": "OK", "prefix": "audiojack/"}
    for folder, chosen in (("realiad_jsons", 3), ("realiad_jsons_sv", 1)):
        place = root / "realiad_jsons" / folder
        place.mkdir(parents=True)
        split = {"meta": meta, **rows, "train": rows["train"][:chosen]}
        (place / "audiojack.json").write_text(json.dumps(split))
    return root


def test_real_iad_follows_the_splits_of_the_folder_that_is_given(tmp_path: Path) -> None:
    root = make_real_iad(tmp_path / "iad")
    assert datasets.categories("real_iad", root) == ["audiojack"]
    found = datasets.load("real_iad", root, "audiojack")
    assert len(found.train) == 3 and kinds(found) == {("good", 0): 1, ("QS", 1): 1}
    views = root / "realiad_jsons" / "realiad_jsons_sv"
    assert len(datasets.load("real_iad", views, "audiojack").train) == 1
    path = views / "audiojack.json"
    split = json.loads(path.read_text())
    path.write_text(json.dumps({**split, "train": split["test"]}))
    with pytest.raises(InputError, match=r"audiojack.json: has anomalous training images"):
        datasets.load("real_iad", views, "audiojack")
    path.write_text("{}")
    with pytest.raises(InputError, match=r"audiojack.json: is not a split of Real-IAD"):
        datasets.load("real_iad", views, "audiojack")
    (root / "realiad_256").rename(root / "elsewhere")
    with pytest.raises(InputError, match=r"contains no images \(one of realiad_1024"):
        datasets.load("real_iad", root, "audiojack")


def test_a_folder_of_ones_own_may_have_validation_images(tmp_path: Path) -> None:
    for split, count in (("train", 3), ("validation", 2)):
        for index in range(count):
            picture(tmp_path / "parts" / split / "good" / f"{index}.png", index)
    found = datasets.load("folder", tmp_path / "parts", "parts")
    assert (len(found.train), len(found.held_out)) == (3, 2)
    before = found.fingerprint
    picture(tmp_path / "parts" / "validation" / "good" / "1.png", 99)
    assert datasets.load("folder", tmp_path / "parts", "parts").fingerprint != before
