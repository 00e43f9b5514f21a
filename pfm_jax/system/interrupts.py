"""SIGTERM handling: a preempted machine receives it a few seconds before shutdown."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Defers SIGTERM to the end of the block, where the process exits with code 0.

    Yields a predicate: whether SIGTERM has arrived and the block should save and return. Has no
    effect outside the main thread.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        yield lambda: bool(received)
    finally:
        signal.signal(signal.SIGTERM, before)
    if received:
        sys.exit(0)


def exit_cleanly() -> None:
    """Makes SIGTERM end the process with exit code 0; files are written atomically."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
