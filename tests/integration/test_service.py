"""The service on a port: clients that leave, its page in a browser, its end."""

from __future__ import annotations

import concurrent.futures
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import uvicorn
from PIL import Image

from pfm_jax.inference.calibration import Threshold
from pfm_jax.serving import service
from pfm_jax.serving.service import Limits
from tests.synthetic import png, red_scorer, red_square, texture

THRESHOLD = Threshold(0.5)
LIMITS = Limits(megabytes=2, megapixels=4)
ROOT = Path(__file__).parents[2]


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture
def address() -> Iterator[str]:
    port = free_port()
    config = uvicorn.Config(
        service.app(red_scorer(), THRESHOLD, LIMITS), port=port, log_level="error"
    )
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    thread.join()


def test_a_client_that_leaves_or_lies_is_survived(address: str) -> None:
    port = int(address.rsplit(":", 1)[1])
    for request in (
        b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nabc",
        b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        b"POST /score HTTP/1.1\r\nHost: a\r\nContent-Length: many\r\n\r\n",
        b"\x00\x01\x02 nonsense\r\n\r\n",
    ):
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(request)
    post = urllib.request.Request(f"{address}/score?map=none", png(red_square()))
    with urllib.request.urlopen(post, timeout=10) as answer:
        assert json.load(answer)["is_anomalous"]


def browser() -> str:
    found = next(
        filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
    )
    if not found:
        pytest.skip("no chromium on this machine")
    return found


def test_the_page_in_a_browser(address: str, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    (tmp_path / "bad.png").write_bytes(png(red_square((300, 200))))
    (tmp_path / "good.png").write_bytes(
        png(np.asarray(Image.fromarray(texture(0)).resize((300, 200))))
    )
    (tmp_path / "text.png").write_text("no image")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=browser(), args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 390, "height": 800})
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(address)
        for name, decision in (("bad", "Anomalous"), ("text", "image file"), ("good", "Normal")):
            page.set_input_files("#file", tmp_path / f"{name}.png")
            page.wait_for_function(
                f"document.querySelector('#decision').textContent.includes('{decision}')"
            )
            assert page.is_visible("#overlay") == (name != "text")
            if name == "bad":
                page.wait_for_function("document.querySelector('#overlay').naturalWidth == 300")
                assert "threshold 0.5000" in page.text_content("#details")
                if folder := os.environ.get("PFM_JAX_PICTURES"):
                    page.screenshot(path=f"{folder}/serve.png", full_page=True)
        # Dropped rather than chosen.
        page.evaluate(
            """async bytes => {
                const data = new DataTransfer();
                data.items.add(new File([new Uint8Array(bytes)], "../../x.png"));
                const how = { dataTransfer: data, bubbles: true, cancelable: true };
                document.querySelector("#drop").dispatchEvent(new DragEvent("drop", how));
            }""",
            list(png(red_square((300, 200)))),
        )
        page.wait_for_function("document.querySelector('#decision').textContent == 'Anomalous'")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert not errors
        chromium.close()


SERVED = """
import sys
import uvicorn
from pfm_jax.serving import service
from pfm_jax.inference.calibration import Threshold
from tests.synthetic import red_square, red_scorer
app = service.app(red_scorer(delay=1.0), Threshold(0.5))
uvicorn.run(app, port=int(sys.argv[1]), timeout_graceful_shutdown=10, log_level="error")
"""


def test_stopped_it_answers_what_it_took() -> None:
    port = free_port()
    command = [sys.executable, "-c", SERVED, str(port)]
    with subprocess.Popen(command, cwd=ROOT) as process:
        try:
            end = time.monotonic() + 120
            while time.monotonic() < end:
                with socket.socket() as probe:
                    if probe.connect_ex(("127.0.0.1", port)) == 0:
                        break
                time.sleep(0.05)
            address = f"http://127.0.0.1:{port}/score?map=none"
            post = urllib.request.Request(address, png(red_square()))
            with concurrent.futures.ThreadPoolExecutor() as pool:
                answer = pool.submit(lambda: json.load(urllib.request.urlopen(post, timeout=60)))
                time.sleep(0.5)
                process.send_signal(signal.SIGTERM)
                assert answer.result()["is_anomalous"]
            assert process.wait(30) in (0, -signal.SIGTERM)
        finally:
            process.kill()
