"""The service: good requests, bad ones, many at once."""

from __future__ import annotations

import base64
import concurrent.futures
import dataclasses
import gzip
import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from pfm_jax.inference.calibration import Threshold
from pfm_jax.serving import service
from pfm_jax.serving.service import Limits
from pfm_jax.system import devices
from tests.synthetic import png, red_scorer, red_square, texture

THRESHOLD = Threshold(0.5)
LIMITS = Limits(megabytes=2, megapixels=4)


@pytest.fixture
def client() -> Iterator[TestClient]:
    app = service.app(red_scorer(), THRESHOLD, LIMITS)
    with TestClient(app, raise_server_exceptions=False) as found:
        yield found


def test_score_decision_and_map(client: TestClient) -> None:
    found = client.post("/score", content=png(red_square()))
    assert found.status_code == 200
    said = found.json()
    assert said["is_anomalous"] and said["score"] > 0.9 and said["threshold"] == 0.5
    assert said["p_value"] == pytest.approx(1 / 40)
    assert (said["width"], said["height"]) == (90, 60)
    anomaly_map = np.asarray(Image.open(io.BytesIO(base64.b64decode(said["map"]))))
    assert anomaly_map.shape == (60, 90) and anomaly_map.dtype == np.float32
    assert anomaly_map[15:35, 25:45].min() > 0.9
    (one,) = said["defects"]
    left, top, width, height = one["box"]
    assert (left, top) == pytest.approx((20, 10), abs=2)
    assert (width, height) == pytest.approx((30, 30), abs=3)
    assert one["score"] >= said["threshold"] and one["area"] <= width * height
    normal = client.post("/score?map=none", content=png(texture(0))).json()
    assert normal["defects"] == []
    assert not normal["is_anomalous"] and normal["map"] is None
    overlay = client.post("/score?map=overlay", content=png(red_square())).json()
    assert Image.open(io.BytesIO(base64.b64decode(overlay["map"]))).size == (90, 60)


def test_a_slash_at_the_end_and_doubts(client: TestClient) -> None:
    low = (texture(3)[..., 0].astype(np.uint16) * 4).clip(0, 1023)
    found = client.post("/score/?map=none", content=png(low), follow_redirects=False)
    assert found.status_code == 200
    (warning,) = found.json()["warnings"]
    assert warning.startswith("the image: 16-bit values of ")
    assert client.post("/score?map=none", content=png(texture(0))).json()["warnings"] == []


def test_without_a_threshold_nothing_is_decided() -> None:
    with TestClient(service.app(red_scorer(), None, LIMITS)) as client:
        said = client.post("/score?map=overlay", content=png(red_square())).json()
        assert said["is_anomalous"] is None and said["threshold"] is None and said["score"] > 0.9
        assert said["defects"] is None
        assert client.get("/health").json()["threshold"] is None
        assert 'pfm_images_total{decision="undecided"} 1.0' in client.get("/metrics").text


def test_images_at_once_are_those_that_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    for gigabytes, megapixels, expected in ((64, 50, 4), (4, 50, 3), (2, 50, 1), (0.1, 50, 1)):
        monkeypatch.setattr(devices, "free_on_host", lambda size=gigabytes: int(size * 1e9))
        assert service.at_once(Limits(megapixels=megapixels)) == expected


def encoded(kind: str, frames: int = 1, size: tuple[int, int] = (64, 64)) -> bytes:
    pictures = [Image.fromarray(texture(i)).resize(size) for i in range(frames)]
    buffer = io.BytesIO()
    if frames > 1:
        pictures[0].save(buffer, kind, save_all=True, append_images=pictures[1:])
    else:
        pictures[0].save(buffer, kind)
    return buffer.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bomb(width: int, height: int) -> bytes:
    """A small file that says that it is large."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", zlib.compress(bytes(1000)))


def text_bomb() -> bytes:
    whole = png(texture(0))
    chunk = png_chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**27)))
    return whole[:33] + chunk + whole[33:]


def crc_fault() -> bytes:
    content = bytearray(png(texture(0)))
    content[20] ^= 1
    return bytes(content)


BAD = {
    "empty": (b"", 400, "empty"),
    "truncated png": (png(texture(0))[:500], 422, "not a readable image"),
    "truncated jpeg": (encoded("jpeg")[:400], 422, "not a readable image"),
    "png with a wrong checksum": (crc_fault(), 415, "not an image file"),
    "1x1": (png(np.zeros((1, 1, 3), np.uint8)), 422, "1x1 pixels"),
    "1 pixel high": (png(np.zeros((1, 300, 3), np.uint8)), 422, "300x1 pixels"),
    "50,000 x 50,000": (png_bomb(50_000, 50_000), 413, "million pixels"),
    "2,001 x 2,000": (png_bomb(2001, 2000), 413, "2001x2000 pixels, more than 4 million"),
    "0 x 0": (png_bomb(0, 0), 415, "not an image file"),
    "inflated text": (text_bomb(), 422, "not a readable image"),
    "too many bytes": (bytes(2**21 + 1), 413, "larger than 2 MiB"),
    "text": (b"hello", 415, "not an image file"),
    "json": (b'{"image": "a.png"}', 415, "not an image file"),
    "svg": (b'<svg xmlns="http://www.w3.org/2000/svg"/>', 415, "not an image file"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "not an image file"),
    "pdf": (encoded("pdf"), 415, "not an image file"),
    "gif": (encoded("gif"), 415, "not an image file"),
    "animated gif": (encoded("gif", 3), 415, "not an image file"),
    "animated png": (encoded("png", 3), 422, "contains 3 images"),
    "animated webp": (encoded("webp", 3), 422, "contains 3 images"),
    "pages of tiff": (encoded("tiff", 3), 422, "contains 3 images"),
    "gzip": (gzip.compress(png(texture(0))), 415, "not an image file"),
    "path": (b"/etc/passwd", 415, "not an image file"),
    "random": (np.random.default_rng(0).bytes(5000), 415, "not an image file"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_bodies_get_one_sentence(name: str, client: TestClient) -> None:
    body, status, message = BAD[name]
    found = client.post("/score?map=none", content=body)
    assert found.status_code == status, found.text
    (said,) = found.json().values()
    assert message in said and "\n" not in said and "object at" not in said
    assert client.post("/score?map=none", content=png(red_square())).json()["is_anomalous"]


@pytest.mark.parametrize(
    ("method", "path", "options", "status", "message"),
    [
        ("POST", "/score?map=../../etc", {"content": png(texture(0))}, 400, "must be one of"),
        ("POST", "/score", {"files": {"i": ("../../a.png", png(texture(0)))}}, 415, "form"),
        ("GET", "/score", {}, 405, "POST an image"),
        ("PUT", "/score", {"content": png(texture(0))}, 405, "POST an image"),
        ("GET", "/../../etc/passwd", {}, 404, "no such page"),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", {}, 404, "no such page"),
        ("POST", "/", {"content": b""}, 405, "POST an image"),
    ],
)
def test_bad_requests_get_one_sentence(
    method: str, path: str, options: dict, status: int, message: str, client: TestClient
) -> None:
    found = client.request(method, path, **options)
    assert found.status_code == status
    assert message in found.json()["error"]


def test_health_and_metrics(client: TestClient) -> None:
    health = client.get("/health").json()
    assert health["status"] == "ok" and health["threshold"] == 0.5
    client.post("/score", content=png(red_square()))
    client.post("/score", content=png(texture(0)))
    client.post("/score", content=b"x")
    told = client.get("/metrics").text
    assert 'pfm_requests_total{status="200"} 2.0' in told
    assert 'pfm_requests_total{status="415"} 1.0' in told
    assert 'pfm_images_total{decision="anomalous"} 1.0' in told


def test_requests_at_the_same_time_share_batches_and_keep_their_own_answers() -> None:
    app = service.app(red_scorer(delay=0.05), THRESHOLD)
    images = [np.full((40, 40, 3), (i, 0, 0), np.uint8) for i in range(0, 250, 5)]
    with TestClient(app) as client, concurrent.futures.ThreadPoolExecutor(50) as pool:
        bodies = [png(image) for image in images]
        found = pool.map(lambda body: client.post("/score?map=none", content=body).json(), bodies)
        scores = [said["score"] for said in found]
        told = client.get("/metrics").text
    np.testing.assert_allclose(scores, [i / 255 for i in range(0, 250, 5)], atol=1e-6)
    (batches,) = [line for line in told.splitlines() if line.startswith("pfm_batch_size_count")]
    assert float(batches.split()[1]) < 30


def test_too_many_waiting_are_sent_away() -> None:
    app = service.app(red_scorer(delay=0.5), THRESHOLD, Limits(waiting=2))
    with TestClient(app) as client, concurrent.futures.ThreadPoolExecutor(20) as pool:
        found = pool.map(lambda _: client.post("/score", content=png(texture(0))), range(20))
        statuses = {answer.status_code for answer in found}
        assert statuses == {200, 503}
        assert client.post("/score", content=png(texture(0))).status_code == 200


def test_a_detector_that_fails_is_a_500_and_the_next_request_is_answered() -> None:
    scorer, fails = red_scorer(), [False]

    def score_batch(images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if fails[0]:
            raise RuntimeError("out of memory at /secret/path")
        return red_scorer().score_batch(images)

    app = service.app(dataclasses.replace(scorer, score_batch=score_batch), THRESHOLD)
    with TestClient(app, raise_server_exceptions=False) as client:
        fails[0] = True
        found = client.post("/score", content=png(texture(0)))
        assert found.status_code == 500 and "secret" not in found.text
        fails[0] = False
        assert client.post("/score", content=png(texture(0))).status_code == 200
