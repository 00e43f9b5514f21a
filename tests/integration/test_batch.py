"""Tables of scores: one row an image, whatever happens to the process."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

from pfm_jax.serving.batch import predict
from tests.synthetic import make_images, red_scorer

THRESHOLD = 0.5


KILLED = """
import sys
from pathlib import Path
from pfm_jax.serving.batch import predict
from tests.synthetic import make_images, red_scorer
predict(red_scorer(delay=0.02), sys.argv[1], Path(sys.argv[2]), 0.5)
"""


def test_killed_at_any_moment_it_ends_with_one_row_an_image(tmp_path: Path) -> None:
    make_images(tmp_path / "in", 160)
    predict(red_scorer(), str(tmp_path / "in"), tmp_path / "undisturbed", THRESHOLD)
    command = [sys.executable, "-c", KILLED, str(tmp_path / "in"), str(tmp_path / "out")]
    table, kills = tmp_path / "out" / "scores.csv", 0
    for rows in (9, 50, 120):
        process = subprocess.Popen(command, cwd=Path(__file__).parents[2])
        while process.poll() is None:
            if table.is_file() and table.read_bytes().count(b"\n") > rows:
                process.send_signal(signal.SIGKILL)
                kills += process.wait() == -signal.SIGKILL
            time.sleep(0.002)
    assert kills == 3
    assert 120 < table.read_bytes().count(b"\n") < 161
    _, new = predict(red_scorer(), str(tmp_path / "in"), tmp_path / "out", THRESHOLD)
    assert 0 < new <= 40
    assert table.read_bytes() == (tmp_path / "undisturbed" / "scores.csv").read_bytes()
