"""Checkpoints of a run: its newest training states, each with its provenance (Orbax)."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp

from pfm_jax.config import Config, from_dict
from pfm_jax.system import devices
from pfm_jax.system.arrays import fingerprint, named
from pfm_jax.training.step import TrainState
from pfm_jax.types import InputError

T = TypeVar("T")

log = logging.getLogger(__name__)

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy", "pillow")


@dataclasses.dataclass(frozen=True, slots=True)
class Provenance:
    """A run's ingredients; kept with every checkpoint.

    Attributes:
        category: the category it is evaluated on.
        trained_on: categories of its training images; several of a unified run.
        data: fingerprint of the normal images.
        weights: name of each network -> fingerprint of its weights.
        data_dir: where the data was; may be overridden later.
        weights_dir: where the weights were, likewise.
        versions: package -> version, of those that decide numbers.
        device: kind of device.
    """

    config: Config
    category: str
    trained_on: tuple[str, ...]
    data: str
    weights: dict[str, str]
    num_images: int
    data_dir: str | None
    weights_dir: str | None
    versions: dict[str, str]
    device: str

    def to_json(self) -> dict[str, Any]:
        """Nested dictionaries as JSON holds them."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Provenance:
        """Inverse of `to_json`. Raises KeyError or TypeError: of another version."""
        config, trained_on = from_dict(values["config"]), tuple(values["trained_on"])
        return cls(**{**values, "config": config, "trained_on": trained_on})


def versions() -> dict[str, str]:
    """Package -> installed version; a checkout on the path may not be installed."""
    found = {package: importlib.metadata.version(package) for package in PACKAGES}
    try:
        return {**found, "pfm_jax": importlib.metadata.version("pfm_jax")}
    except importlib.metadata.PackageNotFoundError:
        return {**found, "pfm_jax": "not installed"}


def check_same_run(old: Provenance, new: Provenance, folder: Path) -> None:
    """Checks that recipe, data and weights are the same. Raises InputError with all differences."""
    was, now = (
        {"config": dataclasses.asdict(one.config), "data": one.data, "weights": one.weights}
        for one in (old, new)
    )
    if differences := _differences(was, now):
        raise InputError(
            f"{folder} holds a run of another kind: {'; '.join(differences)}; "
            "use another --workdir, or delete that folder"
        )


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> list[str]:
    found: list[str] = []
    for key in sorted({*old, *new}):
        a, b = old.get(key), new.get(key)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differences(a, b, f"{prefix}{key}.")
        elif a != b:
            short = [f"{x[:12]}..." if isinstance(x, str) and len(x) == 64 else x for x in (a, b)]
            found.append(f"{prefix}{key} was {short[0]!r}, now {short[1]!r}")
    return found


class Checkpoints:
    """The last two checkpoints of one run, in `folder`. A context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=2)
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._written() if kind in (None, SystemExit) else contextlib.suppress(Exception):
            self._manager.close()

    def save(self, state: TrainState, provenance: Provenance) -> None:
        """Saves atomically in the background, after the previous save has finished.

        Raises InputError: the disk is full, or the previous save failed; the checkpoints before it
        are there.
        """
        needed, free = 1.5 * devices.tree_bytes(state), shutil.disk_usage(self.folder).free
        if free < needed:  # before Orbax begins, whose threads would fail at length
            raise self._unwritten(f"{needed / 1e6:.0f} MB are needed, {free / 1e6:.0f} MB are free")
        # On the host: Orbax slices arrays on several devices, and compiles a program for each.
        held = jax.device_get(state)
        about = {**provenance.to_json(), "sha256": fingerprint(named(held))}
        args = ocp.args.Composite(
            state=ocp.args.StandardSave(held), provenance=ocp.args.JsonSave(about)
        )
        with self._written():
            self._manager.save(int(held.step), args=args)

    @contextlib.contextmanager
    def _written(self) -> Iterator[None]:
        """Makes one line of what Orbax raises when it can't write."""
        try:
            yield
        except Exception as error:
            full = re.search(r"No space left on device|Disk quota exceeded", str(error))
            reason = full[0] if full else " ".join(str(error).split())[:200]
            raise self._unwritten(reason) from error

    def _unwritten(self, reason: str) -> InputError:
        kept = "complete ones are kept, and the same command resumes"
        return InputError(f"checkpoints can't be written ({reason}); {kept}")

    def provenance(self) -> Provenance | None:
        """Provenance of the newest intact checkpoint; None if there is none.

        Raises InputError: a checkpoint that can't be read, or of another version of pfm_jax.
        """

        def one(step: int) -> Provenance:
            values = self._about(step)
            del values["sha256"]
            try:
                return Provenance.from_json(values)
            except (KeyError, TypeError) as error:
                raise self._foreign(step) from error

        return self._newest(one)

    def restore(self, like: TrainState) -> TrainState:
        """Restores the newest intact state; a corrupt one is quarantined, with a warning.

        `like`, a state of the same run, gives the shapes; it is returned if no checkpoint is
        intact. Raises InputError; see `provenance`.
        """
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(shapes))

        def one(step: int) -> TrainState:
            state: TrainState = self._manager.restore(step, args=args).state
            if fingerprint(named(state)) != self._about(step)["sha256"]:
                raise ValueError("its checksum differs")
            return state

        return self._newest(one) or like

    def _newest(self, read: Callable[[int], T]) -> T | None:
        while (step := self._manager.latest_step()) is not None:
            try:
                return read(step)
            except (InputError, MemoryError):
                raise
            except PermissionError as error:
                raise InputError(f"{self.folder}: step {step}: {error.strerror}") from error
            except Exception as error:  # Orbax raises nothing narrower for a torn file
                reason = " ".join(str(error).split())[:100]
                aside = self.folder.parent / "damaged" / f"{step}_{time.time_ns()}"
                log.warning("step %d is damaged (%s): moved to %s", step, reason, aside)
                if devices.is_primary():
                    aside.parent.mkdir(exist_ok=True)
                    shutil.move(self.folder / str(step), aside)
                devices.barrier("quarantine")
                self._manager.reload()
        return None

    def _about(self, step: int) -> dict[str, Any]:
        args = ocp.args.Composite(provenance=ocp.args.JsonRestore())
        about = dict(self._manager.restore(step, args=args).provenance)
        if "sha256" not in about:
            raise self._foreign(step)
        return about

    def _foreign(self, step: int) -> InputError:
        return InputError(
            f"{self.folder}: step {step} is of another version of pfm_jax; use another --workdir"
        )
