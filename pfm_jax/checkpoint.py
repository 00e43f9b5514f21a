"""A run on disk: the newest training states, and beside each what it was trained from (Orbax)."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp

from pfm_jax import sharding
from pfm_jax.array_file import fingerprint, named
from pfm_jax.config import Config, from_dict
from pfm_jax.train import TrainState
from pfm_jax.types import InputError

T = TypeVar("T")

log = logging.getLogger(__name__)

PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy", "pillow", "pfm_jax")


@dataclasses.dataclass(frozen=True, slots=True)
class Provenance:
    """What a run was made from; kept with every checkpoint.

    Attributes:
        config: the recipe.
        category: of the data set.
        data: its fingerprint.
        weights: name of each network -> fingerprint of its weights.
        num_images: images it was trained on.
        data_dir, weights_dir: where data and weights were; may be overridden later.
        versions: of the packages that decide numbers.
        device: what it ran on.
    """

    config: Config
    category: str
    data: str
    weights: dict[str, str]
    num_images: int
    data_dir: str | None
    weights_dir: str | None
    versions: dict[str, str]
    device: str

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it; the config as nested dicts."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def versions() -> dict[str, str]:
    """Package -> installed version."""
    return {package: importlib.metadata.version(package) for package in PACKAGES}


def check_same_run(old: Provenance, new: Provenance, folder: Path) -> None:
    """Raises InputError with every difference that would make the numbers other ones."""
    differences = _differences(
        dataclasses.asdict(old.config), dataclasses.asdict(new.config), "config."
    )
    differences += _differences(
        {"data": old.data, "weights": old.weights}, {"data": new.data, "weights": new.weights}, ""
    )
    if differences:
        raise InputError(
            f"{folder} holds a run of another kind: {'; '.join(differences)}; "
            "use another --workdir, or delete that folder"
        )


def _differences(old: dict[str, Any], new: dict[str, Any], prefix: str) -> list[str]:
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
    """The checkpoints of one run, in `folder`; the last two are kept. A context manager."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=2)
        self._manager = ocp.CheckpointManager(self.folder, options=options)

    def __enter__(self) -> Checkpoints:
        return self

    def __exit__(self, *error: object) -> None:
        self._manager.close()

    def save(self, state: TrainState, provenance: Provenance) -> None:
        """Saves whole or not at all, in the background; waits for the save before.

        Raises:
            OSError: the save before could not be written; the checkpoints before it are there.
        """
        raw = _raw(state)
        about = {**provenance.to_json(), "sha256": fingerprint(named(raw))}
        self._manager.save(
            int(state.step),
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(raw), provenance=ocp.args.JsonSave(about)
            ),
        )

    def provenance(self) -> Provenance | None:
        """That of the newest checkpoint that is whole; None if there is none.

        Raises:
            InputError: one that can't be read here, or of another version of this package.
        """

        def one(step: int) -> Provenance:
            values = self._about(step)
            del values["sha256"]
            try:
                return Provenance(**{**values, "config": from_dict(values["config"])})
            except (KeyError, TypeError) as error:
                raise self._foreign(step) from error

        return self._newest(one)

    def restore(self, like: TrainState) -> TrainState:
        """The newest state that is whole. One that is not is set aside, and a warning says so.

        Args:
            like: a state of the same run; its shapes count, not its values. Given back if no
                checkpoint is whole.

        Raises:
            InputError: one that can't be read here, or of another version of this package.
        """
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, _raw(like))
        args = ocp.args.Composite(state=ocp.args.StandardRestore(shapes))

        def one(step: int) -> TrainState:
            raw = self._manager.restore(step, args=args).state
            if fingerprint(named(raw)) != self._about(step)["sha256"]:
                raise ValueError("its checksum is another one")
            return dataclasses.replace(raw, key=jax.random.wrap_key_data(raw.key))

        return self._newest(one) or like

    def _newest(self, read: Callable[[int], T]) -> T | None:
        while (step := self._manager.latest_step()) is not None:
            try:
                return read(step)
            except InputError:
                raise
            except PermissionError as error:
                raise InputError(f"{self.folder}: step {step}: {error.strerror}") from error
            except Exception as error:  # Orbax raises no other for a torn array
                reason = " ".join(str(error).split())[:100]
                aside = self.folder.parent / "damaged" / f"{step}_{time.time_ns()}"
                log.warning("step %d is damaged (%s): moved to %s", step, reason, aside)
                if sharding.is_first():
                    aside.parent.mkdir(exist_ok=True)
                    shutil.move(self.folder / str(step), aside)
                sharding.wait("damage")
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


def _raw(state: TrainState) -> TrainState:
    """With the key as plain numbers, as Orbax can keep it."""
    return dataclasses.replace(state, key=jax.random.key_data(state.key))
