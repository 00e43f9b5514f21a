"""SIGTERM: what a preempted machine gets a few seconds before it goes."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Within the block SIGTERM does nothing but be remembered; at its end the process exits with 0.

    Only the main thread can do that; in another one nothing changes.

    Yields:
        Whether there was one: time to save and to leave the block.
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
    """From now on SIGTERM ends the process with exit code 0, files being whole or not there."""

    def leave(*_: object) -> None:
        raise SystemExit(0)

    signal.signal(signal.SIGTERM, leave)
