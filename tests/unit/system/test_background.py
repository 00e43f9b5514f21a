"""Work beside the main thread."""

from __future__ import annotations

import threading

import pytest

from pfm_jax.system.background import at_once, in_background


def test_work_is_done_in_order_in_another_thread_and_waited_for() -> None:
    done, may_start = [], threading.Event()
    with in_background() as later:
        later(lambda: (may_start.wait(10), done.append(threading.get_ident())))
        later(lambda: done.append(2))
        assert done == [], "given away, not done"
        may_start.set()
    assert done[1:] == [2]
    assert done[0] != threading.get_ident()


def test_an_error_is_raised_at_the_end_and_the_rest_is_done() -> None:
    done: list[int] = []
    may_start = threading.Event()
    with pytest.raises(ZeroDivisionError), in_background() as later:
        later(lambda: may_start.wait(10) and 1 / 0)
        later(lambda: done.append(1))
        may_start.set()
    assert done == [1]


def test_an_error_is_raised_where_more_work_is_given() -> None:
    failed = threading.Event()
    with pytest.raises(ZeroDivisionError), in_background() as later:
        later(lambda: 1 / 0)
        later(failed.set)
        failed.wait(10)
        later(lambda: None)
        pytest.fail("the error came too late")


def test_an_error_is_logged_where_the_block_fails(caplog: pytest.LogCaptureFixture) -> None:
    may_start = threading.Event()
    with pytest.raises(SystemExit), in_background() as later:
        later(lambda: may_start.wait(10) and 1 / 0)
        may_start.set()
        raise SystemExit
    assert "ZeroDivisionError: division by zero" in caplog.text


def test_at_once() -> None:
    done: list[int] = []
    at_once(lambda: done.append(1))
    assert done == [1]
