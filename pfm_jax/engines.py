"""Who does the jobs of a sweep: processes of this machine, or Ray."""

from __future__ import annotations

import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from tqdm import tqdm

from pfm_jax.plan import Job
from pfm_jax.types import InputError

COUNT = "import jax; print(jax.default_backend(), jax.local_device_count())"
VISIBLE = {"gpu": ("CUDA_VISIBLE_DEVICES",), "tpu": ("TPU_VISIBLE_CHIPS", "TPU_VISIBLE_DEVICES")}
RETRIES = 2

Outcome = str | None
"""What went wrong, if anything."""


def local(jobs: Sequence[Job], command: Callable[[Job], list[str]]) -> list[Outcome]:
    """Each job in a process of its own, one at a time on each device of this machine."""
    backend, count = _devices()
    free: queue.SimpleQueue[int] = queue.SimpleQueue()
    for device in range(count):
        free.put(device)

    running: list[subprocess.Popen[bytes]] = []

    def one(job: Job) -> Outcome:
        device = free.get()
        visible = {name: str(device) for name in VISIBLE.get(backend, ()) if count > 1}
        with subprocess.Popen(command(job), env={**os.environ, **visible}) as process:
            running.append(process)
            code = process.wait()
        free.put(device)
        return None if code == 0 else f"its process ended with code {code}"

    with ThreadPoolExecutor(count) as pool:
        try:
            return list(tqdm(pool.map(one, jobs), "sweep", len(jobs), unit="job", disable=None))
        except BaseException:  # SIGTERM: the jobs save what they have, too
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.terminate()
            raise


def _devices() -> tuple[str, int]:
    """Asked of another process: this one would take the devices for itself."""
    done = subprocess.run(
        [sys.executable, "-c", COUNT], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise InputError(f"jax finds no device: {done.stderr.strip().splitlines()[-1]}")
    backend, count = done.stdout.split()[-2:]
    return backend, 1 if backend == "cpu" else int(count)


def end_with_parent() -> None:
    """Ends this process when the one that started it is gone, however that came about: a job left
    alone would meet its successor in the same folder.
    """
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def ray(jobs: Sequence[Job], task: Callable[[Job], None]) -> list[Outcome]:
    """Each job as a Ray task, on the cluster that `RAY_ADDRESS` names or else on this machine.

    A task takes one GPU or TPU if the cluster has any, and is tried again where its worker dies.
    The folders of data, weights and runs have to be those of every machine.

    Raises:
        InputError: Ray is not installed.
    """
    try:
        import ray as cluster
    except ImportError as error:
        raise InputError("engine=ray: install the extra, pip install -e '.[ray]'") from error
    cluster.init(ignore_reinit_error=True, log_to_driver=True)
    kind = next((k for k in ("GPU", "TPU") if cluster.cluster_resources().get(k)), "CPU")
    options = (
        {"num_gpus": 1} if kind == "GPU" else {"resources": {"TPU": 1}} if kind == "TPU" else {}
    )

    def one(job: Job) -> None:
        task(job)

    remote = cluster.remote(num_cpus=1, max_retries=RETRIES, **options)(one)
    waiting = [remote.remote(job) for job in jobs]
    outcomes: list[Outcome] = []
    for result in tqdm(waiting, "sweep", unit="job", disable=None):
        try:
            cluster.get(result)
            outcomes.append(None)
        except cluster.exceptions.RayError as error:
            outcomes.append(f"{type(error).__name__}: {error}")
    return outcomes
