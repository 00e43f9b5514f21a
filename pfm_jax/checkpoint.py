"""A run on disk: the newest training states, and beside each what it was trained from (Orbax)."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from pfm_jax.config import Config, from_dict
from pfm_jax.train import TrainState
from pfm_jax.types import InputError

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
            found.append(f"{prefix}{key} was {a!r}, now {b!r}")
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
        """Saves whole or not at all, in the background; waits for the save before."""
        raw = dataclasses.replace(state, key=jax.random.key_data(state.key))
        self._manager.save(
            int(state.step),
            args=ocp.args.Composite(
                state=ocp.args.StandardSave(raw), provenance=ocp.args.JsonSave(provenance.to_json())
            ),
        )

    def provenance(self) -> Provenance | None:
        """That of the newest checkpoint; None if there is none. Raises InputError if damaged."""
        step = self._manager.latest_step()
        if step is None:
            return None
        args = ocp.args.Composite(provenance=ocp.args.JsonRestore())
        try:
            values = self._manager.restore(step, args=args).provenance
            return Provenance(**{**values, "config": from_dict(values["config"])})
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{self.folder}: step {step} can't be read ({error})") from error

    def restore(self, like: TrainState) -> TrainState:
        """The newest state. Raises InputError if it is damaged.

        Args:
            like: a state of the same run; its shapes count, not its values.
        """
        raw = dataclasses.replace(like, key=jax.random.key_data(like.key))
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, raw)
        args = ocp.args.Composite(state=ocp.args.StandardRestore(shapes))
        step = self._manager.latest_step()
        try:
            state = self._manager.restore(step, args=args).state
        except (OSError, KeyError, TypeError, ValueError) as error:
            raise InputError(f"{self.folder}: step {step} can't be read ({error})") from error
        return dataclasses.replace(state, key=jax.random.wrap_key_data(state.key))
