"""Throughput of the service under load, compared with batch scoring of the same files."""

from __future__ import annotations

import io
import json
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pfm_jax.config import Config

from ..common import cli
from . import untrained


def measure(
    config: Config, weights_dir: str, folder: Path, clients: int = 32, seconds: float = 60
) -> dict[str, Any]:
    """Requests per second, median and 95th percentile of latency, and failures.

    Args:
        config: recipe of the detector; its heads are untrained, which takes the same time.
        weights_dir: folder of its networks' weights.
        folder: scratch folder.
        clients: concurrent clients, each with one request at a time.
        seconds: duration of the load.
    """
    networks, state, _ = untrained.start(config, weights_dir)
    detector = untrained.detector(networks, state, config)
    images = _make_images(folder / "images", 64)
    detector.score(images)
    start = time.perf_counter()
    detector.score(images)
    plain = len(images) / (time.perf_counter() - start)
    detector.save(folder / "detector")
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    argv = [*cli.command("serve"), f"--artifact={folder / 'detector'}"]
    with subprocess.Popen([*argv, "--threshold=1", f"--port={port}"]) as process:
        try:
            address = f"http://127.0.0.1:{port}"
            _wait(process, f"{address}/health")
            bodies = [path.read_bytes() for path in images]
            load = _load(f"{address}/score?map=none", bodies, clients, seconds)
        finally:
            process.terminate()
    return {
        "clients": clients,
        "served_per_second": load["answers"] / seconds,
        "batched_per_second": plain,
        "served_over_batched": load["answers"] / seconds / plain,
        **load,
    }


def _make_images(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    rng, paths = np.random.default_rng(0), []
    for index in range(count):
        coarse = Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8))
        buffer = io.BytesIO()
        coarse.resize((512, 512), Image.Resampling.BICUBIC).save(buffer, "png")
        paths.append(folder / f"{index}.png")
        paths[-1].write_bytes(buffer.getvalue())
    return paths


def _wait(process: subprocess.Popen[bytes], address: str) -> None:
    while process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError("the service did not start")


def _load(address: str, bodies: list[bytes], clients: int, seconds: float) -> dict[str, Any]:
    latencies: list[float] = []
    failures: list[str] = []
    end = time.perf_counter() + seconds

    def one(client: int) -> None:
        number = client
        while (start := time.perf_counter()) < end:
            request = urllib.request.Request(address, bodies[number % len(bodies)])
            try:
                with urllib.request.urlopen(request, timeout=60) as answer:
                    json.load(answer)["score"]
                latencies.append(time.perf_counter() - start)
            except (OSError, ValueError, KeyError) as error:
                failures.append(str(error))
            number += clients

    threads = [threading.Thread(target=one, args=(client,)) for client in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "answers": len(latencies),
        "failures": len(failures),
        "median_seconds": float(np.quantile(latencies, 0.5)),
        "p95_seconds": float(np.quantile(latencies, 0.95)),
    }
