"""Executors of sweep jobs: local processes or Ray."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tqdm import tqdm

from pfm_jax.sweeps.plan import Job
from pfm_jax.types import InputError

DEVICE_QUERY = "import jax; print(jax.default_backend(), jax.local_device_count())"
VISIBLE_DEVICE_VARIABLES = {
    "gpu": ("CUDA_VISIBLE_DEVICES",),
    "tpu": ("TPU_VISIBLE_CHIPS", "TPU_VISIBLE_DEVICES"),
}
RAY_OPTIONS: dict[str, dict[str, Any]] = {
    "GPU": {"num_gpus": 1},
    "TPU": {"resources": {"TPU": 1}},
}
MAX_RETRIES = 2

Outcome = str | None  # error message of a job


def local(jobs: Sequence[Job], command: Callable[[Job], list[str]]) -> list[Outcome]:
    """Runs each job in its own process, one at a time per local device."""
    backend, count = _devices()
    variables = VISIBLE_DEVICE_VARIABLES.get(backend, ()) if count > 1 else ()
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    for device in range(count):
        free.put(device)
    running: list[subprocess.Popen[bytes]] = []

    def one(job: Job) -> Outcome:
        device = free.get()
        visible = dict.fromkeys(variables, str(device))
        with subprocess.Popen(command(job), env={**os.environ, **visible}) as process:
            running.append(process)
            code = process.wait()
        free.put(device)
        return None if code == 0 else f"process exited with code {code}"

    with ThreadPoolExecutor(count) as pool:
        try:
            return list(tqdm(pool.map(one, jobs), "sweep", len(jobs), unit="job", disable=None))
        except BaseException:  # on SIGTERM, let the jobs save their state
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.terminate()
            raise


def _devices() -> tuple[str, int]:
    """Backend and device count, queried in a subprocess so that this one claims no device."""
    query = [sys.executable, "-c", DEVICE_QUERY]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"no JAX device found: {done.stderr.strip().splitlines()[-1]}")
    backend, count = done.stdout.split()[-2:]
    return backend, 1 if backend == "cpu" else int(count)


def end_with_parent() -> None:
    """Exits when the parent is gone: an orphan would write to the same folder as its successor."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def ray(jobs: Sequence[Job], task: Callable[[Job], None]) -> list[Outcome]:
    """Runs each job as a Ray task on the cluster at `RAY_ADDRESS`, or else on this machine.

    A task takes one GPU or TPU if the cluster has any, and is retried if its worker dies. Data
    and weights must be on storage shared by all machines, and runs there or in object storage.

    Raises:
        InputError: Ray is not installed.
    """
    try:
        import ray as cluster
    except ImportError as error:
        raise InputError("engine=ray: install the extra, pip install -e '.[ray]'") from error
    cluster.init(ignore_reinit_error=True, log_to_driver=True)
    resources = cluster.cluster_resources()
    options = next((RAY_OPTIONS[kind] for kind in RAY_OPTIONS if resources.get(kind)), {})

    def one(job: Job) -> None:
        task(job)

    remote = cluster.remote(num_cpus=1, max_retries=MAX_RETRIES, **options)(one)
    waiting = [remote.remote(job) for job in jobs]
    outcomes: list[Outcome] = []
    for result in tqdm(waiting, "sweep", unit="job", disable=None):
        try:
            cluster.get(result)
            outcomes.append(None)
        except cluster.exceptions.RayError as error:
            outcomes.append(f"{type(error).__name__}: {error}")
    return outcomes
