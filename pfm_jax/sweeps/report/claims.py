"""The paper's claims, tested on the results of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pfm_jax.metrics import PAPER_METRICS
from pfm_jax.sweeps.plan import Plan
from pfm_jax.sweeps.report.tables import METRIC_NAMES, case_cells, describe, percent
from pfm_jax.sweeps.results import Cell, over_categories, over_seeds

WIDE_MARGIN = 0.1
"""Margin of pretrained over random weights, as a fraction."""


class Claim(NamedTuple):
    """Outcome of a claim for one pair of networks and one metric, with the measured values."""

    words: str
    holds: bool
    measured: str


def claims(plan: Plan, found: Sequence[Cell]) -> list[Claim]:
    """Tests all claims that the cases of a sweep allow.

    Both directions beat one at a level (case 2 and 1); three levels beat each alone (8 and 2 to 4);
    pretrained networks beat random ones by more than `WIDE_MARGIN` (8 and 9).
    """
    one = {n: len(plan.configs[c.run].mapping.directions) == 1 for n, c in plan.cases.items()}
    pairs = {n: plan.configs[c.run].networks for n, c in plan.cases.items()}
    there = []
    for name, case in plan.cases.items():
        if one[name] or not pairs[name].pretrained:
            continue
        alike = [n for n in plan.cases if pairs[n] == pairs[name]]
        ways = [n for n in alike if one[n] and plan.cases[n].levels == case.levels]
        there += _compare(plan, found, "both directions beat one", name, ways)
        if len(case.levels) < 3:
            continue
        single = [n for n in alike if not one[n] and len(plan.cases[n].levels) == 1]
        there += _compare(plan, found, "three levels beat each alone", name, single)
        random = [
            n
            for n, networks in pairs.items()
            if not networks.pretrained
            and (networks.source, networks.target) == (pairs[name].source, pairs[name].target)
            and plan.cases[n].levels == case.levels
        ]
        margin = f"pretrained beats random by more than {100 * WIDE_MARGIN:.0f} points"
        there += _compare(plan, found, margin, name, random, WIDE_MARGIN)
    return list(dict.fromkeys(there))


def _compare(
    plan: Plan,
    found: Sequence[Cell],
    words: str,
    winner: str,
    losers: Sequence[str],
    margin: float = 0.0,
) -> list[Claim]:
    """Tests a claim in each metric for which all of its cases have results."""
    networks, claims_ = plan.configs[plan.cases[winner].run].networks, []
    for metric in PAPER_METRICS if losers else ():
        ours = over_categories(case_cells(found, winner), metric)
        theirs = {n: over_categories(case_cells(found, n), metric) for n in losers}
        known = {n: spread for n, spread in theirs.items() if spread is not None}
        if ours is None or len(known) < len(theirs):
            continue
        holds = all(ours.mean > spread.mean + margin for spread in known.values())
        against = "; ".join(f"{describe(plan, n)}: {percent(s)}" for n, s in known.items())
        where = f"{words} ({networks.source} and {networks.target}), {METRIC_NAMES[metric]}"
        alone = _where(plan, found, winner, losers, metric, margin)
        claims_.append(Claim(where, holds, f"{percent(ours)} against {against}. {alone}"))
    return claims_


def _where(
    plan: Plan,
    found: Sequence[Cell],
    winner: str,
    losers: Sequence[str],
    metric: str,
    margin: float,
) -> str:
    """Lists the categories in which a claim holds and those in which it does not."""
    holds: dict[bool, list[str]] = {True: [], False: []}
    for category in plan.categories:
        cells = [case_cells(found, name, category) for name in (winner, *losers)]
        ours, *theirs = (over_seeds(some, metric) for some in cells)
        if ours and None not in theirs:
            best = max(spread.mean for spread in theirs if spread)
            shown = f"{category} ({100 * ours.mean:.1f} against {100 * best:.1f})"
            holds[ours.mean > best + margin].append(shown)
    words = {True: "Each by itself, it holds in ", False: "Not in "}
    return " ".join(f"{words[k]}{', '.join(names)}." for k, names in holds.items() if names)
