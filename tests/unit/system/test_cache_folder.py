"""The cache's size and its removal, part by part."""

from __future__ import annotations

from pathlib import Path

from pfm_jax.system import cache_folder


def test_a_missing_cache_is_empty(cache: Path) -> None:
    assert not cache.exists()
    assert cache_folder.sizes() == {} and cache_folder.clear() == 0


def test_parts_are_measured_and_removed(cache: Path, tmp_path: Path) -> None:
    for name, size in (("downloads/a.zip", 10), ("unpacked/0/x/y.png", 20), ("unpacked/1.png", 3)):
        (cache / name).parent.mkdir(parents=True, exist_ok=True)
        (cache / name).write_bytes(bytes(size))
    (cache / ".removed-0").mkdir()  # by a removal that was killed
    (cache / ".removed-0" / "z").write_bytes(bytes(5))
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").write_bytes(bytes(1000))
    (cache / "compiled").symlink_to(tmp_path / "elsewhere")
    link = (cache / "compiled").lstat().st_size
    (cache / "weights").mkdir()
    (cache / "weights" / "by_hand.safetensors").write_bytes(bytes(7))
    removed = {".removed-0": 5, "compiled": link, "downloads": 10, "unpacked": 23}
    assert cache_folder.sizes() == {**removed, "weights": 7}
    assert cache_folder.clear() == sum(removed.values())
    assert cache_folder.sizes() == {"weights": 7}
    assert (tmp_path / "elsewhere" / "kept").is_file()
