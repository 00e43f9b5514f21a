"""What a sweep does: a grid of categories, cases and seeds, and the fewest runs that fill it.

Heads of a level do not depend on other levels, so cases that differ in levels only are one run,
measured at several combinations (not if maps are standardised: that is by the map of all levels).
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pfm_jax.config import Config, SweepConfig, from_dict, replaced, validate
from pfm_jax.types import LEVELS, InputError


@dataclasses.dataclass(frozen=True, slots=True)
class Case:
    """A row of a table: the run that it is measured in, and at which levels."""

    run: str
    levels: tuple[str, ...]


@dataclasses.dataclass(frozen=True, slots=True)
class Plan:
    """What a sweep does.

    Attributes:
        name: of the sweep.
        configs: name of a run -> its recipe, at all the levels that its cases need.
        cases: name -> where it is measured.
        categories: of the data set.
        seeds: each run has one folder for each.
    """

    name: str
    configs: dict[str, Config]
    cases: dict[str, Case]
    categories: tuple[str, ...]
    seeds: tuple[int, ...]

    def folder(self, workdir: Path, run: str, seed: int, category: str) -> Path:
        """Where a run is kept."""
        return workdir / run / f"seed_{seed}" / category

    def combinations(self, run: str) -> tuple[tuple[str, ...], ...]:
        """Levels of a run's cases that an evaluation would not measure by itself."""
        among = {case.levels for case in self.cases.values() if case.run == run}
        return tuple(sorted(c for c in among if 1 < len(c) < len(self.configs[run].mapping.latent)))

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Plan:
        """The inverse of `to_json`."""
        return cls(
            name=values["name"],
            configs={run: from_dict(config) for run, config in values["configs"].items()},
            cases={k: Case(v["run"], tuple(v["levels"])) for k, v in values["cases"].items()},
            categories=tuple(values["categories"]),
            seeds=tuple(values["seeds"]),
        )


@dataclasses.dataclass(frozen=True, slots=True)
class Job:
    """Runs of one category that share their features, by the names of their recipes."""

    category: str
    runs: tuple[str, ...]

    @property
    def name(self) -> str:
        """Unique in a plan."""
        return f"{self.runs[0]}/{self.category}"


def make_plan(
    config: SweepConfig, categories: Sequence[str], seeds: Sequence[int], cases: Sequence[str] = ()
) -> Plan:
    """Merges the cases (some of them, if `cases` names any) into runs. Raises InputError."""
    if unknown := sorted(set(cases) - set(config.cases)):
        raise InputError(f"cases: no {', '.join(unknown)}; there are {', '.join(config.cases)}")
    merged: list[tuple[Config, dict[str, tuple[str, ...]]]] = []
    for name in cases or config.cases:
        case = replaced(config.base, {**config.cases[name], "name": name})
        validate(case)
        levels = tuple(level for level in LEVELS if level in case.mapping.latent)
        for index, (other, members) in enumerate(merged):
            if union := _union(other, case):
                merged[index] = union, {**members, name: levels}
                break
        else:
            merged.append((case, {name: levels}))
    configs: dict[str, Config] = {}
    where: dict[str, Case] = {}
    for recipe, members in merged:
        run = max(members, key=lambda name: len(members[name]))  # the one with most levels
        configs[run] = dataclasses.replace(recipe, name=run)
        where |= {name: Case(run, levels) for name, levels in members.items()}
    ordered = {name: where[name] for name in cases or config.cases}
    return Plan(config.name, configs, ordered, tuple(categories), tuple(seeds))


def _union(a: Config, b: Config) -> Config | None:
    """The recipe of both, if they differ in name and levels only."""
    latent = {**a.mapping.latent, **b.mapping.latent}
    ordered = {level: latent[level] for level in LEVELS if level in latent}
    both = [replaced(one, {"mapping.latent": ordered, "name": a.name}) for one in (a, b)]
    alike = all({**latent, **one.mapping.latent} == latent for one in (a, b))
    alike &= not a.scoring.standardize
    return both[0] if alike and both[0] == both[1] else None


def jobs(plan: Plan) -> list[Job]:
    """All jobs of a plan."""
    sharing: dict[str, list[str]] = {}
    for run, config in plan.configs.items():
        sharing.setdefault(repr((config.networks, config.data)), []).append(run)
    return [Job(c, tuple(runs)) for c in plan.categories for runs in sharing.values()]
