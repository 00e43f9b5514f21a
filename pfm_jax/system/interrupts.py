"""SIGTERM handling: a preempted machine receives it a few seconds before shutdown."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from pfm_jax.system import devices


@contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Defers SIGTERM to the end of the block, where the process exits with code 0.

    Yields a predicate: whether SIGTERM has arrived, at this or at any other process of the launch,
    and the block should save and return. All processes must ask it equally often. Has no effect
    outside the main thread.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return

    def stopping() -> bool:
        # The answer is common to all: a signal that comes meanwhile is for the next time.
        if stop := devices.any_process(bool(received)):
            received.append(signal.SIGTERM)
        return stop

    before = signal.signal(signal.SIGTERM, lambda number, _: received.append(number))
    try:
        yield stopping
    finally:
        signal.signal(signal.SIGTERM, before or signal.SIG_DFL)  # None: not set by Python
    if received:
        sys.exit(0)


def exit_cleanly() -> None:
    """Makes SIGTERM end the process with exit code 0; files are written atomically."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
