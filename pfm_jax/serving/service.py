"""HTTP scoring service (extra `serve`).

    POST /score[?map=none|tiff|overlay]   an image file as the body -> JSON: score, p_value,
                                          threshold, is_anomalous, width, height, map (base64),
                                          warnings, defects
    GET  /                                upload page
    GET  /health, /metrics                status, and counters in Prometheus format

Requests that arrive while a batch is scored form the next batch. A bad request gets a 4xx status
and one sentence as `{"error": ...}`.
"""

from __future__ import annotations

import asyncio
import base64
import io
import warnings
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, UnidentifiedImageError
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from pfm_jax.datasets import decoding, images
from pfm_jax.datasets.decoding import Decoded
from pfm_jax.evaluation import figures
from pfm_jax.inference import calibration, defects
from pfm_jax.inference.calibration import Threshold
from pfm_jax.inference.scorer import Scorer
from pfm_jax.serving.batcher import Batcher
from pfm_jax.system import devices
from pfm_jax.types import InputError

MAP_FORMATS = ("none", "tiff", "overlay")
HINTS = {404: "no such page: POST an image to /score", 405: "POST an image to /score"}
FORMS_REFUSED = "multipart forms are not supported; send the image file as the body"
MOST_AT_ONCE = 4  # images that are decoded or drawn
BYTES_A_PIXEL = 13  # of an image that is decoded and drawn, its map and its picture included


class Limits(NamedTuple):
    """Request limits."""

    megabytes: float = 32  # MiB of the body
    megapixels: float = 50  # million pixels of the image
    seconds: float = 30  # to receive the body
    waiting: int = 256  # images in the queue; further requests get a 503


DEFAULT_LIMITS = Limits()


def at_once(limits: Limits) -> int:
    """Images of the largest size that half of the free memory allows to decode or draw at once."""
    largest = BYTES_A_PIXEL * limits.megapixels * 1e6
    return max(1, min(MOST_AT_ONCE, int(devices.free_on_host() / 2 / largest)))


def decode(body: bytes, megapixels: float, value_range: float) -> Decoded:
    """Decodes the image of a request. Raises HTTPException if unreadable or too large."""
    limit = f"more than {megapixels:g} million"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our limit is lower
            with Image.open(io.BytesIO(body), formats=decoding.FORMATS) as header:
                width, height = header.size
    except UnidentifiedImageError as error:
        known = ", ".join(decoding.FORMATS)
        raise HTTPException(415, f"the body is not an image file ({known})") from error
    except Image.DecompressionBombError as error:
        raise HTTPException(413, f"the image has {limit} pixels") from error
    except decoding.UNREADABLE as error:
        detail = f"the image: not a readable image ({decoding.reason(error)})"
        raise HTTPException(422, detail) from error
    if width * height > megapixels * 1e6:
        raise HTTPException(413, f"the image is {width}x{height} pixels, {limit}")
    try:
        return decoding.decode(body, "the image", value_range)
    except InputError as error:
        raise HTTPException(422, str(error)) from error


async def read_body(request: Request, limits: Limits) -> bytes:
    """Reads the body. Raises HTTPException if it is too large, too slow, empty or a form."""
    most = int(limits.megabytes * 2**20)
    too_large = HTTPException(413, f"the body is larger than {limits.megabytes:g} MiB")
    if request.headers.get("content-type", "").startswith("multipart/"):
        raise HTTPException(415, FORMS_REFUSED)
    if int(request.headers.get("content-length", 0)) > most:
        raise too_large
    body = bytearray()
    try:
        async with asyncio.timeout(limits.seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > most:
                    raise too_large
    except ClientDisconnect as error:
        raise HTTPException(400, "the body ended early") from error
    except TimeoutError as error:
        raise HTTPException(408, f"the body took longer than {limits.seconds:g} s") from error
    if not body:
        raise HTTPException(400, "the body is empty: send an image file")
    return bytes(body)


class Service:
    """Request handlers and their Prometheus counters."""

    def __init__(self, scorer: Scorer, threshold: Threshold | None, limits: Limits) -> None:
        self.scorer, self.threshold, self.limits = scorer, threshold, limits
        self.registry = registry = CollectorRegistry()
        self.answers = Counter("pfm_requests", "Requests by status.", ["status"], registry=registry)
        self.images = Counter("pfm_images", "Images by decision.", ["decision"], registry=registry)
        self.seconds = Histogram("pfm_request_seconds", "Request latency.", registry=registry)
        counts = range(1, devices.batch_size() + 1)
        sizes = Histogram("pfm_batch_size", "Images per batch.", buckets=counts, registry=registry)
        self.batcher = Batcher(scorer, limits.waiting, sizes)
        self.pictures = asyncio.Semaphore(at_once(limits))  # decoded or drawn, at full resolution

    async def score(self, request: Request) -> Response:
        """Scores the image in the body."""
        kind = request.query_params.get("map", "tiff")
        if kind not in MAP_FORMATS:
            raise HTTPException(400, f"map: must be one of {', '.join(MAP_FORMATS)}")
        with self.seconds.time():
            body = await read_body(request, self.limits)
            async with self.pictures:
                limits = self.limits.megapixels, self.scorer.value_range
                image, notes, _ = await asyncio.to_thread(decode, body, *limits)
                pixels = await asyncio.to_thread(images.resized, image, self.scorer.size)
            score, anomaly_map = await self.batcher.score(pixels)
            async with self.pictures:
                content = await asyncio.to_thread(self._answer, image, score, anomaly_map, kind)
            content["warnings"] = [f"the image: {note}" for note in notes]
        decision = {True: "anomalous", False: "normal", None: "undecided"}
        self.images.labels(decision[content["is_anomalous"]]).inc()
        self.answers.labels("200").inc()
        return JSONResponse(content)

    def _answer(
        self, image: Image.Image, score: float, anomaly_map: np.ndarray, kind: str
    ) -> dict[str, Any]:
        """Content of the response to `POST /score`."""
        p_value = float(calibration.p_values(np.array([score]), self.scorer.normal_scores)[0])
        threshold = None if self.threshold is None else self.threshold.value
        picture, regions = None, None
        if threshold is not None:
            over = score > threshold
            regions = defects.find(anomaly_map, image.size, threshold) if over else []
        if kind == "tiff":
            picture = figures.encode(images.map_at(anomaly_map, image.size), "tiff")
        elif kind == "overlay":
            picture = decoding.saved(figures.overlay(image, anomaly_map, threshold, score), "png")
        return {
            "score": score,
            "p_value": None if np.isnan(p_value) else p_value,
            "threshold": threshold,
            "is_anomalous": None if threshold is None else score > threshold,
            "width": image.width,
            "height": image.height,
            "defects": regions and [one._asdict() for one in regions],
            "map": picture and base64.b64encode(picture).decode(),
        }

    async def page(self, _: Request) -> Response:
        """Upload page."""
        return HTMLResponse(Path(__file__).with_name("serve.html").read_text("utf-8"))

    async def health(self, _: Request) -> Response:
        """Status, detector fingerprint, threshold and queue length."""
        value = self.threshold and self.threshold.value
        about = {"threshold": value, "about": str(self.threshold or "no threshold")}
        status = {"status": "ok", "detector": self.scorer.fingerprint(), **about}
        return JSONResponse({**status, "waiting": self.batcher.queue.qsize()})

    async def metrics(self, _: Request) -> Response:
        """Counters in Prometheus format."""
        return Response(generate_latest(self.registry), media_type="text/plain; version=0.0.4")

    async def refused(self, _: Request, error: Exception) -> Response:
        """Converts an error to a status and one sentence."""
        status, detail = 500, "the detector failed"
        if isinstance(error, HTTPException):
            status, detail = error.status_code, HINTS.get(error.status_code, error.detail)
        self.answers.labels(str(status)).inc()
        return JSONResponse({"error": detail}, status)

    @asynccontextmanager
    async def running(self, _: Starlette) -> AsyncIterator[None]:
        """Compiles the programs before accepting requests, then runs the batcher."""
        for count in devices.batch_sizes():
            blank = np.zeros((count, *(self.scorer.size,) * 2, 3), np.uint8)
            await asyncio.to_thread(self.scorer.score, blank)
        task = asyncio.create_task(self.batcher.run())
        yield
        task.cancel()


def app(scorer: Scorer, threshold: Threshold | None, limits: Limits = DEFAULT_LIMITS) -> Starlette:
    """Creates the service as an ASGI application."""
    service = Service(scorer, threshold, limits)
    routes = [
        Route("/", service.page),
        Route("/score", service.score, methods=["POST"]),
        Route("/score/", service.score, methods=["POST"]),
        Route("/health", service.health),
        Route("/metrics", service.metrics),
    ]
    handlers: dict[Any, Any] = {HTTPException: service.refused, Exception: service.refused}
    return Starlette(routes=routes, exception_handlers=handlers, lifespan=service.running)
