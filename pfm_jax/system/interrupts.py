"""SIGTERM handling: a preempted machine receives it a few seconds before shutdown."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Defers SIGTERM to the end of the block, where the process exits with code 0.

    Has no effect outside the main thread.

    Yields:
        A predicate: whether SIGTERM has arrived and the block should save and return.
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
        raise SystemExit(0)


def exit_cleanly() -> None:
    """Makes SIGTERM end the process with exit code 0; files are written atomically."""

    def leave(*_: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, leave)
