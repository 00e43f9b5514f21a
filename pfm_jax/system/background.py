"""Work that may be done later, beside the main thread."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

log = logging.getLogger(__name__)

Work = Callable[[], object]

Later = Callable[[Work], None]
"""Does work some time, one piece after the other."""


def at_once(work: Work) -> None:
    """Does work at once."""
    work()


@contextmanager
def in_background() -> Iterator[Later]:
    """Does work in a thread; the end of the block waits for it.

    Work goes on after an error, which is raised where more work is given or at the end; it is
    logged if the block fails before.
    """
    given: list[Future[object]] = []

    def later(work: Work) -> None:
        given.append(pool.submit(work))
        for done in filter(Future.done, given):
            done.result()

    with ThreadPoolExecutor(1) as pool:
        try:
            yield later
        except BaseException:
            for error in filter(None, map(Future.exception, given)):
                log.error("%s: %s", type(error).__name__, error)
            raise
        for one in given:
            one.result()
