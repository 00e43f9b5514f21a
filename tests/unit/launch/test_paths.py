"""Flags that are paths, and the folder of the cache, wherever home is."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from absl import flags

from launch.common import paths
from pfm_jax.recipes import load_recipe
from pfm_jax.system import files
from pfm_jax.types import InputError


@pytest.mark.parametrize(
    ("given", "found"),
    [("~/runs", "HOME/runs"), ("~/*.png", "HOME/*.png"), ("s3://a/~/b", "s3://a/~/b"), ("x", "x")],
)
def test_home_is_expanded_in_every_path_flag(
    given: str, found: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", "HOME")
    values = flags.FlagValues()
    flag = paths.define("place", None, "A place.", flag_values=values)
    values(["program", f"--place={given}"])
    assert flag.value == found


def test_every_flag_of_a_place_is_one() -> None:
    folder = Path(__file__).parents[3] / "launch"
    for launcher in [*folder.glob("*.py"), *(folder / "common").glob("*.py")]:
        for name in ("data_dir", "weights_dir", "workdir", "images", "output", "artifact"):
            assert f'DEFINE_string("{name}"' not in launcher.read_text(), launcher


def test_a_recipe_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    text = "from pfm_jax.config import Config\ndef get_config(): return Config(name='mine')\n"
    (tmp_path / "mine.py").write_text(text)
    assert load_recipe("~/mine.py").name == "mine"


@pytest.mark.skipif(sys.platform == "win32", reason="every user has a home folder there")
def test_the_cache_variable_is_enough_without_a_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container, whose user has no name."""
    import pwd

    def unknown(_: int) -> None:
        raise KeyError

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", "XDG_CACHE_HOME", "PFM_JAX_CACHE"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(InputError, match="no home folder: set PFM_JAX_CACHE"):
        files.cache_dir()
    monkeypatch.setenv("PFM_JAX_CACHE", str(tmp_path))
    assert files.cache_dir() == tmp_path
