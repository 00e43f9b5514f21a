"""SIGTERM that arrives while processes agree on whether to stop."""

from __future__ import annotations

import os
import signal

import pytest

from pfm_jax.system import devices, interrupts


def test_a_signal_while_they_agree_is_for_the_next_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the others were told, this process is: one that stops alone waits for ever."""
    told = []

    def agree(flag: bool) -> bool:
        os.kill(os.getpid(), signal.SIGTERM)
        return flag

    monkeypatch.setattr(devices, "any_process", agree)
    with pytest.raises(SystemExit) as ended, interrupts.deferred() as stopping:
        told += [stopping(), stopping()]
    assert told == [False, True]
    assert ended.value.code == 0
