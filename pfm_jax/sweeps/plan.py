"""Sweep plans: a grid of categories, cases and seeds, and the fewest runs that cover it.

The heads of a level are independent of other levels, so cases that differ only in levels share one
run, measured at several combinations of levels. The exception is recipes with a memory, which is
made of the stages of all levels.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pfm_jax.config import Config, SweepConfig, from_dict
from pfm_jax.recipes import validate
from pfm_jax.types import InputError


def read_json(path: Path) -> Any:
    """Content of a JSON file; None if it does not exist."""
    return json.loads(path.read_text()) if path.is_file() else None


def tells_what_is_done(name: str) -> bool:
    """Selects the files of a sweep's folder, relative to it, that tell what is done."""
    return name.endswith(("/metrics.json", "/failed.json")) or name.startswith("speed/")


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """A table row: its run and the levels to measure."""

    run: str
    levels: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """Runs, cases, categories and seeds of a sweep; every run has all categories and seeds."""

    name: str
    configs: dict[str, Config]  # by run, with the union of the levels of its cases
    cases: dict[str, Case]
    categories: tuple[str, ...]
    seeds: tuple[int, ...]

    def folder(self, workdir: Path, run: str, seed: int, category: str) -> Path:
        """Folder of a run."""
        return workdir / run / f"seed_{seed}" / category

    def is_whole(self, case: str) -> bool:
        """Whether a case has all levels of its run."""
        found = self.cases[case]
        return set(found.levels) == set(self.configs[found.run].levels)

    @property
    def mapping_cases(self) -> dict[str, Case]:
        """Cases of the mapping, not of a baseline."""
        return {k: c for k, c in self.cases.items() if self.configs[c.run].baseline is None}

    def recipe(self, case: str) -> Config:
        """Recipe of a case, with its levels only."""
        config, levels = self.configs[self.cases[case].run], self.cases[case].levels
        if config.baseline is not None:
            return config
        return replaced(config, {"mapping.latent": {k: config.mapping.latent[k] for k in levels}})

    def combinations(self, run: str) -> tuple[tuple[str, ...], ...]:
        """Level combinations of a run's cases that `evaluate` does not measure by default."""
        among = {case.levels for case in self.cases.values() if case.run == run}
        return tuple(sorted(c for c in among if 1 < len(c) < len(self.configs[run].levels)))

    def to_json(self) -> dict[str, Any]:
        """Nested dictionaries, as JSON holds them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Plan:
        """Restores a plan from `to_json`."""
        return cls(
            name=values["name"],
            configs={run: from_dict(config) for run, config in values["configs"].items()},
            cases={k: Case(v["run"], tuple(v["levels"])) for k, v in values["cases"].items()},
            categories=tuple(values["categories"]),
            seeds=tuple(values["seeds"]),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """Runs of one category that share features, by name."""

    category: str
    runs: tuple[str, ...]

    @property
    def name(self) -> str:
        """Unique within a plan."""
        return f"{self.runs[0]}/{self.category}"


def make_plan(
    config: SweepConfig, categories: Sequence[str], seeds: Sequence[int], cases: Sequence[str] = ()
) -> Plan:
    """Merges cases (all, or those named in `cases`) into runs. Raises InputError."""
    if unknown := sorted(set(cases) - set(config.cases)):
        raise InputError(
            f"cases: unknown {', '.join(unknown)}; choose from {', '.join(config.cases)}"
        )
    merged: list[tuple[Config, dict[str, tuple[str, ...]]]] = []
    for name in cases or config.cases:
        case = replaced(config.base, {**config.cases[name], "name": name})
        validate(case)
        levels = tuple(sorted(case.levels))
        for index, (other, members) in enumerate(merged):
            if union := _union(other, case):
                merged[index] = union, {**members, name: levels}
                break
        else:
            merged.append((case, {name: levels}))
    configs: dict[str, Config] = {}
    found: dict[str, Case] = {}
    for recipe, members in merged:
        run = max(members, key=lambda name: len(members[name]))  # the case with the most levels
        configs[run] = dataclasses.replace(recipe, name=run)
        found |= {name: Case(run, levels) for name, levels in members.items()}
    ordered = {name: found[name] for name in cases or config.cases}
    return Plan(config.name, configs, ordered, tuple(categories), tuple(seeds))


def replaced(config: Config, changes: dict[str, Any]) -> Config:
    """Copies a recipe with changed fields, named as in `SweepConfig.cases`. Raises InputError."""
    for field, value in changes.items():
        part, _, name = field.rpartition(".")
        try:
            inner = getattr(config, part) if part else config
            changed: Any = dataclasses.replace(inner, **{name: value})
            config = dataclasses.replace(config, **{part: changed}) if part else changed
        except (AttributeError, TypeError) as error:
            raise InputError(f"config.{field}: unknown field") from error
    return config


def _union(a: Config, b: Config) -> Config | None:
    """Common recipe of two that differ only in name and levels, else None."""
    latent = {**a.mapping.latent, **b.mapping.latent}
    if a.scoring.memory or {**latent, **a.mapping.latent} != latent:
        return None
    ordered = dict(sorted(latent.items()))
    one, other = (replaced(c, {"mapping.latent": ordered, "name": a.name}) for c in (a, b))
    return one if one == other else None


def jobs(plan: Plan) -> list[Job]:
    """Groups the runs of each category into jobs that share features."""
    sharing: dict[str, list[str]] = {}
    for run, config in plan.configs.items():
        sharing.setdefault(repr((config.networks, config.data)), []).append(run)
    return [Job(c, tuple(runs)) for c in plan.categories for runs in sharing.values()]
