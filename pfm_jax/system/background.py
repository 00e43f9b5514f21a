"""Work that may be done later, beside the main thread."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

Work = Callable[[], object]

Later = Callable[[Work], None]
"""Does work some time, one piece after the other."""


def at_once(work: Work) -> None:
    """Does work at once."""
    work()


@contextmanager
def in_background() -> Iterator[Later]:
    """Does work in a thread; the end of the block waits for it and raises the first error."""
    with ThreadPoolExecutor(1) as pool:
        waiting: list[Future[object]] = []
        yield lambda work: waiting.append(pool.submit(work))
        for one in waiting:
            one.result()
