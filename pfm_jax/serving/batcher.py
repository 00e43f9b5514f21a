"""Dynamic batching: concurrent requests, scored together."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
from prometheus_client import Histogram
from starlette.exceptions import HTTPException

from pfm_jax.inference.scorer import Scorer
from pfm_jax.system import devices


class Batcher:
    """Queue of images and the task that scores them. Only one `run` at a time."""

    def __init__(self, scorer: Scorer, waiting: int, sizes: Histogram) -> None:
        self.scorer, self.sizes = scorer, sizes
        self.queue: asyncio.Queue[tuple[np.ndarray, asyncio.Future[Any]]] = asyncio.Queue(waiting)

    async def score(self, pixels: np.ndarray) -> tuple[float, np.ndarray]:
        """Score and map `[size, size]` of uint8 `[size, size, 3]`. Raises HTTPException if full."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        try:
            self.queue.put_nowait((pixels, future))
        except asyncio.QueueFull as error:
            raise HTTPException(503, "too many requests are waiting; try again") from error
        return await future

    async def run(self) -> None:
        """Scores queued images until cancelled."""
        most = devices.batch_size()
        while True:
            batch = [await self.queue.get()]
            while len(batch) < most and not self.queue.empty():
                batch.append(self.queue.get_nowait())
            self.sizes.observe(len(batch))
            try:
                stacked = np.stack([pixels for pixels, _ in batch])
                scores, maps = await asyncio.to_thread(self.scorer.score, stacked)
            except Exception as error:  # fails every request of the batch
                for _, future in batch:
                    if not future.done():
                        future.set_exception(error)
                continue
            for (_, future), score, anomaly_map in zip(batch, scores, maps, strict=True):
                if future.done():  # the client disconnected
                    continue
                if np.isfinite(score):
                    future.set_result((float(score), anomaly_map))
                else:
                    future.set_exception(ArithmeticError("non-finite score"))
