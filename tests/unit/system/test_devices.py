"""Arrays on several devices."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest

from pfm_jax.system import devices


def test_batches_really_are_shared_out(monkeypatch: pytest.MonkeyPatch) -> None:
    some = jax.devices()[:4]
    monkeypatch.setattr(devices, "devices", lambda: some)
    placed = devices.shard_batch(np.arange(8.0))
    assert [shard.data.shape for shard in placed.addressable_shards] == [(2,)] * 4
    inside = jax.jit(devices.constrain_batch)({"even": np.arange(8.0), "odd": np.arange(7.0)})
    assert len(inside["even"].sharding.device_set) == 4
    assert not inside["even"].sharding.is_fully_replicated
    assert devices.batch_sizes() == (4, 8) and devices.batch_size() == 8
    assert devices.replicate({"a": np.ones(3)})["a"].sharding.is_fully_replicated


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8])
def test_runs_are_shared_out_evenly(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """No device has more runs than it must have, none that trains has fewer than another."""
    some = jax.devices()[:count]
    monkeypatch.setattr(devices, "devices", lambda: some)
    for runs in range(1, 50):
        most = math.ceil(runs / count)
        padded, used = devices.even_runs(runs), devices.runs_mesh(devices.even_runs(runs)).size
        assert (
            padded >= runs
            and padded == most * used
            and used == min(n for n in range(1, count + 1) if n * most >= runs)
        )


def test_an_accelerator_gets_more_images_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    assert (devices.batch_sizes(), devices.batch_size()) == ((1, 8), 8)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(devices, "devices", lambda: jax.devices()[:2])
    assert (devices.batch_sizes(), devices.batch_size()) == ((2, 16, 64), 64)
