"""Tables of scores: one row an image, whatever the images are."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pfm_jax.serving.batch import Options, normal_scores, predict
from pfm_jax.serving.table import Row
from pfm_jax.system import files
from pfm_jax.types import InputError
from tests.synthetic import make_images, png, red_scorer, red_square, texture

THRESHOLD = 0.5


def rows_of(output: Path) -> list[dict[str, str]]:
    with (output / "scores.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_image_has_a_row(tmp_path: Path) -> None:
    paths = make_images(tmp_path / "in" / "a" / "b")
    (tmp_path / "in" / "notes.txt").write_text("no image")
    (tmp_path / "in" / "a" / "broken.png").write_bytes(paths[0].read_bytes()[:300])
    (tmp_path / "in" / "empty.jpg").write_bytes(b"")
    (tmp_path / "in" / 'a,\n"b".png').write_bytes(paths[3].read_bytes())
    odd = os.fsdecode(os.fsencode(tmp_path / "in") + b"/caf\xe9.png")
    Path(odd).write_bytes(paths[1].read_bytes())
    (tmp_path / "in" / "loop").symlink_to(tmp_path / "in")
    (tmp_path / "in" / "gone.png").symlink_to(tmp_path / "nowhere")
    counts, new = predict(red_scorer(), str(tmp_path / "in"), tmp_path / "out", THRESHOLD)
    rows = rows_of(tmp_path / "out")
    assert tuple(rows[0]) == Row._fields
    assert new == len(rows) == len({row["path"] for row in rows}) == 25
    assert counts == {"normal": 14, "anomalous": 8, "unreadable": 3}
    for row in rows:
        name = Path(row["path"]).name
        if name in ("broken.png", "empty.jpg", "gone.png"):
            assert row["error"] and name in row["error"]
            assert row["score"] == row["p_value"] == row["is_anomalous"] == ""
            continue
        red = name.startswith("a,") or (name[0] == "0" and int(name[:3]) % 3 == 0)
        assert row["error"] == ""
        assert row["is_anomalous"] == str(red) == str(float(row["score"]) > THRESHOLD)
        assert float(row["threshold"]) == THRESHOLD
        assert float(row["p_value"]) == pytest.approx(1 / 40 if red else 1, abs=0.99)
    assert any(row["path"].endswith("caf\\xe9.png") for row in rows)


def test_pictures(tmp_path: Path) -> None:
    """Maps are what a reader of 32-bit TIFF gets back, at the image's size and place."""
    paths = make_images(tmp_path / "in" / "hole", 4)
    Image.open(paths[0]).save(paths[0].with_suffix(".bmp"))
    scorer = red_scorer()
    predict(scorer, str(tmp_path / "in"), tmp_path / "out", THRESHOLD, Options(True, True))
    names = {"000.bmp", "000.png", "001", "002", "003"}
    for kind, suffix in (("maps", "tiff"), ("overlays", "png")):
        found = {p.name.removesuffix(f".{suffix}") for p in (tmp_path / "out" / kind).glob("*/*")}
        assert found == names
    with Image.open(tmp_path / "out" / "maps" / "hole" / "003.tiff") as opened:
        assert opened.mode == "F" and opened.size == (50, 80)
        anomaly_map = np.asarray(opened)
    assert anomaly_map[22:38, 12:28].min() > 0.9
    assert anomaly_map[60:].max() < 0.2
    overlay = np.asarray(Image.open(tmp_path / "out" / "overlays" / "hole" / "003.png"))
    assert overlay.shape == (80, 50, 3)
    red = (overlay == (255, 0, 0)).all(-1)
    assert red[15:45, 5:35].sum() > 40 and red[15:45, 5:35].sum() == red.sum()
    assert not red[24:36, 14:26].any(), "an outline, not a blot"


def test_defects_of_all_images_stand_in_one_file(tmp_path: Path) -> None:
    """In COCO's layout, of earlier runs too; masks and boxes agree."""
    make_images(tmp_path / "in", 7)
    output, options = tmp_path / "out", Options(masks=True)
    predict(red_scorer(), str(tmp_path / "in" / "00[0-3].png"), output, THRESHOLD, options)
    (tmp_path / "in" / "broken.png").write_bytes(b"")
    predict(red_scorer(), str(tmp_path / "in"), output, THRESHOLD, options)
    found = json.loads((output / "defects.json").read_text())
    assert len(found["images"]) == 7 and len(found["annotations"]) == 3
    names = {image["id"]: Path(image["file_name"]) for image in found["images"]}
    for one in found["annotations"]:
        path = names[one["image_id"]]
        assert int(path.stem) % 3 == 0
        mask = np.asarray(Image.open(output / "masks" / f"{path.stem}.png"))
        assert mask.shape == (80, 50) and set(np.unique(mask)) == {0, 255}
        rows, columns = np.nonzero(mask)
        left, top, width, height = one["bbox"]
        assert (left, top) == (columns.min(), rows.min()) and one["area"] == len(rows)
        assert (left + width, top + height) == (columns.max() + 1, rows.max() + 1)
        np.testing.assert_allclose(one["centroid"], (20, 30), atol=1)
        assert one["score"] > THRESHOLD
    assert not np.asarray(Image.open(output / "masks" / "001.png")).any()


def test_globs_and_single_files(tmp_path: Path) -> None:
    make_images(tmp_path / "in" / "x", 3)
    make_images(tmp_path / "in" / "y", 3)
    for pattern, count in (("in/*/00[01].png", 4), ("in/**/*.png", 6), ("in/x/002.png", 1)):
        output = tmp_path / str(count)
        assert predict(red_scorer(), str(tmp_path / pattern), output, 0.5)[1] == count
    options = Options(maps=True)
    predict(red_scorer(), str(tmp_path / "in" / "*" / "000.png"), tmp_path / "o", 0.5, options)
    assert {p.parent.name for p in (tmp_path / "o" / "maps").glob("*/*")} == {"x", "y"}
    with pytest.raises(InputError, match="no image found"):
        predict(red_scorer(), str(tmp_path / "in" / "*.jpg"), tmp_path / "none", 0.5)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("left", [0, 5, 30, 37, 200, 1000, 10_000])
def test_a_torn_table_is_mended(left: int, tmp_path: Path) -> None:
    make_images(tmp_path / "in")
    (tmp_path / "in" / 'new\nline "quoted".png').write_bytes(png(texture(1)))
    predict(red_scorer(), str(tmp_path / "in"), tmp_path / "out", THRESHOLD)
    table = tmp_path / "out" / "scores.csv"
    whole = table.read_bytes()
    table.write_bytes(whole[:left])
    predict(red_scorer(), str(tmp_path / "in"), tmp_path / "out", THRESHOLD)
    assert table.read_bytes() == whole


def test_scores_of_another_kind_are_refused(tmp_path: Path) -> None:
    make_images(tmp_path / "in", 3)
    output = tmp_path / "out"
    predict(red_scorer(), str(tmp_path / "in"), output, THRESHOLD)
    before = (output / "scores.csv").read_bytes()
    with pytest.raises(InputError, match="holds scores of another threshold; use another --output"):
        predict(red_scorer(), str(tmp_path / "in"), output, 0.4)
    (output / "predict.json").write_text("{")
    with pytest.raises(InputError, match=r"predict\.json: can't be read"):
        predict(red_scorer(), str(tmp_path / "in"), output, THRESHOLD)
    assert (output / "scores.csv").read_bytes() == before


def test_changed_and_unreadable_files_are_scored_again(tmp_path: Path) -> None:
    """No row of an unchanged file is written anew, however its folder is spelt."""
    paths = make_images(tmp_path / "in", 5)
    half = paths[1].read_bytes()
    paths[1].write_bytes(half[:300])
    scorer, output = red_scorer(), tmp_path / "out"
    counts, new = predict(scorer, str(tmp_path / "in"), output, THRESHOLD)
    assert new == 5 and counts["unreadable"] == 1
    paths[1].write_bytes(half)
    paths[2].write_bytes(png(red_square()))
    before = {row["path"]: row for row in rows_of(output)}
    counts, new = predict(scorer, str(tmp_path / "in" / ".." / "in"), output, THRESHOLD)
    rows = {row["path"]: row for row in rows_of(output)}
    assert new == 2 and counts == {"normal": 2, "anomalous": 3} and len(rows) == 5
    assert rows[str(paths[2])]["is_anomalous"] == "True"
    for path in (paths[0], paths[3], paths[4]):
        assert rows[str(path)] == before[str(path)]
    content = paths[0].read_bytes()
    os.utime(paths[0], ns=(0, 7))
    assert paths[0].read_bytes() == content
    assert predict(scorer, str(tmp_path / "in"), output, THRESHOLD)[1] == 1
    assert predict(scorer, str(tmp_path / "in"), output, THRESHOLD)[1] == 0
    (row,) = [row for row in rows_of(output) if row["path"] == str(paths[0])]
    assert (row["bytes"], row["modified_ns"]) == (str(len(content)), "7")


def test_the_same_name_in_another_folder_is_another_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for index, name in enumerate(("left", "right")):
        make_images(tmp_path / name / "new", 2 + index)
        monkeypatch.chdir(tmp_path / name)
        assert predict(red_scorer(), "new", tmp_path / "out", THRESHOLD)[1] == 2 + index
    (tmp_path / "link").symlink_to(tmp_path / "left" / "new")
    assert predict(red_scorer(), str(tmp_path / "link"), tmp_path / "out", THRESHOLD)[1] == 0
    assert len({row["path"] for row in rows_of(tmp_path / "out")}) == 5
    options = Options(maps=True)
    predict(red_scorer(), "new", tmp_path / "out", THRESHOLD, options)
    for options in (Options(maps=True), Options(masks=True)):
        with pytest.raises(InputError, match="of another folder of pictures; use another"):
            predict(red_scorer(), str(tmp_path / "link"), tmp_path / "out", THRESHOLD, options)


def test_what_is_written_is_never_scored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    make_images(tmp_path / "in", 3)
    for pattern in ("in", "in/**/*.png"):
        for _ in range(2):
            output = tmp_path / "in" / pattern.replace("/", "").replace("*", "a")
            options = Options(True, True)
            predict(red_scorer(), str(tmp_path / pattern), output, THRESHOLD, options)
        mine = [row["path"] for row in rows_of(output) if str(output) in row["path"]]
        assert not mine
    assert "1 file passed over: 1 in the output folder" in caplog.text
    with pytest.raises(InputError, match=r"no image found .*: 1 file passed over"):
        predict(red_scorer(), str(tmp_path / "in"), tmp_path / "in", THRESHOLD)


def test_pictures_asked_for_later_are_drawn(tmp_path: Path) -> None:
    make_images(tmp_path / "in", 3)
    assert predict(red_scorer(), str(tmp_path / "in"), tmp_path / "out", THRESHOLD)[1] == 3
    for expected in (3, 0):
        options = Options(overlays=True)
        images = str(tmp_path / "in")
        assert predict(red_scorer(), images, tmp_path / "out", THRESHOLD, options)[1] == expected
    assert len([*(tmp_path / "out" / "overlays").glob("*.png")]) == 3


def test_a_threshold_of_zero_is_one(tmp_path: Path) -> None:
    make_images(tmp_path / "in", 1)
    predict(red_scorer(), str(tmp_path / "in"), tmp_path / "out", 0.0, Options(masks=True))
    assert np.asarray(Image.open(tmp_path / "out" / "masks" / "000.png")).any()


@pytest.mark.parametrize("content", [b"a,b\n1,2\n", b"\xff\n", b"short\n"])
def test_a_table_that_another_program_wrote_is_refused(content: bytes, tmp_path: Path) -> None:
    make_images(tmp_path / "in", 2)
    predict(red_scorer(), str(tmp_path / "in"), tmp_path / "out", THRESHOLD)
    table = tmp_path / "out" / "scores.csv"
    table.write_bytes(table.read_bytes() + content if content == b"short\n" else content)
    before = table.read_bytes()
    with pytest.raises(InputError, match=r"scores\.csv: .*use another --output"):
        predict(red_scorer(), str(tmp_path / "in"), tmp_path / "out", THRESHOLD)
    assert table.read_bytes() == before


def test_without_a_threshold_nothing_is_decided(tmp_path: Path) -> None:
    make_images(tmp_path / "in", 3)
    output = tmp_path / "out"
    counts, new = predict(red_scorer(), str(tmp_path / "in"), output, None, Options(True, True))
    assert counts == {"undecided": 3} and new == 3
    for row in rows_of(output):
        assert row["threshold"] == row["is_anomalous"] == "" and float(row["score"]) >= 0
    overlay = np.asarray(Image.open(output / "overlays" / "000.png"))
    assert not (overlay == (255, 0, 0)).all(-1).any(), "no outline"
    with pytest.raises(InputError, match="another threshold"):
        predict(red_scorer(), str(tmp_path / "in"), output, 0.5)


def test_doubts_about_a_file_stand_in_its_row(tmp_path: Path) -> None:
    make_images(tmp_path / "in", 2)
    low = (texture(3)[..., 0].astype(np.uint16) * 4).clip(0, 1023)
    Image.fromarray(low).save(tmp_path / "in" / "low.png")
    predict(red_scorer(), str(tmp_path / "in"), tmp_path / "out", THRESHOLD)
    warnings = [row["warnings"] for row in rows_of(tmp_path / "out")]
    assert warnings[:2] == ["", ""] and f"16-bit values of {low.max()} at most" in warnings[2]
    scorer = dataclasses.replace(red_scorer(), value_range=1023.0)
    predict(scorer, str(tmp_path / "in"), tmp_path / "ranged", THRESHOLD)
    assert rows_of(tmp_path / "ranged")[2]["warnings"] == ""


def test_two_at_a_time_are_refused(tmp_path: Path) -> None:
    make_images(tmp_path / "in", 3)
    with files.locked(tmp_path / "out"), pytest.raises(InputError, match="out: in use by another"):
        predict(red_scorer(), str(tmp_path / "in"), tmp_path / "out", THRESHOLD)


def test_normal_scores(tmp_path: Path) -> None:
    paths = make_images(tmp_path / "in", 11)
    found = normal_scores(red_scorer(), str(tmp_path / "in"))
    assert [bool(score > THRESHOLD) for score in found] == [i % 3 == 0 for i in range(11)]
    paths[4].write_bytes(b"broken")
    with pytest.raises(InputError, match=r"004\.png: not a readable image"):
        normal_scores(red_scorer(), str(tmp_path / "in"))


def test_a_score_that_is_not_finite_is_an_error(tmp_path: Path) -> None:
    make_images(tmp_path / "in", 10)
    scorer = red_scorer()

    def score_batch(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        scores, maps = scorer.score_batch(images)
        return np.where(scores > THRESHOLD, np.nan, scores), maps

    bad = dataclasses.replace(scorer, score_batch=score_batch)
    counts, _ = predict(bad, str(tmp_path / "in"), tmp_path / "out", THRESHOLD)
    assert counts == {"normal": 6, "unreadable": 4}
    assert all("non-finite" in row["error"] for row in rows_of(tmp_path / "out") if row["error"])
