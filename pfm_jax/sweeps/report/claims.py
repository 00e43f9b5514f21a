"""The paper's claims, tested on the results of a sweep."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pfm_jax.metrics import NAMES, PAPER_METRICS
from pfm_jax.sweeps.plan import Plan
from pfm_jax.sweeps.report.tables import called, case_cells, percent
from pfm_jax.sweeps.results import Cell, over_categories, over_seeds

WIDE_MARGIN = 0.1  # of pretrained over random weights, as a fraction


class Comparison(NamedTuple):
    """Claim that one case beats others by more than a margin, a fraction."""

    words: str
    winner: str
    losers: list[str]
    margin: float = 0.0


class Claim(NamedTuple):
    """Outcome of a claim for one pair of networks and one metric, with the measured values."""

    words: str
    holds: bool
    measured: str


def claims(plan: Plan, found: Sequence[Cell]) -> list[Claim]:
    """Tests all claims that the cases of a sweep allow.

    Both directions beat one at a level (case 2 and 1); all levels beat each alone (8 and 2 to 4);
    pretrained networks beat random ones by more than `WIDE_MARGIN` (8 and 9).
    """
    cases = plan.mapping_cases
    one = {n: len(plan.configs[c.run].mapping.directions) == 1 for n, c in cases.items()}
    pairs = {n: plan.configs[c.run].networks for n, c in cases.items()}
    comparisons = []
    for name, case in cases.items():
        if one[name] or not pairs[name].pretrained:
            continue
        alike = [n for n in cases if pairs[n] == pairs[name]]
        ways = [n for n in alike if one[n] and plan.cases[n].levels == case.levels]
        comparisons.append(Comparison("both directions beat one", name, ways))
        if len(case.levels) < 2 or not plan.is_whole(name):
            continue
        each = [(level,) for level in case.levels]
        single = [n for n in alike if not one[n] and plan.cases[n].levels in each]
        comparisons.append(Comparison("all levels beat each alone", name, single))
        random = [
            n
            for n, networks in pairs.items()
            if not networks.pretrained
            and (networks.source, networks.target) == (pairs[name].source, pairs[name].target)
            and plan.cases[n].levels == case.levels
        ]
        margin = f"pretrained beats random by more than {100 * WIDE_MARGIN:.0f} points"
        comparisons.append(Comparison(margin, name, random, WIDE_MARGIN))
    tested = (claim for one in comparisons for claim in _compare(plan, found, one))
    return list(dict.fromkeys(tested))


def _compare(plan: Plan, found: Sequence[Cell], comparison: Comparison) -> Iterator[Claim]:
    """Tests a claim in each metric for which all of its cases have results."""
    words, winner, losers, margin = comparison
    networks = plan.configs[plan.cases[winner].run].networks
    for metric in PAPER_METRICS if losers else ():
        ours = over_categories(case_cells(found, winner), metric)
        theirs = {n: over_categories(case_cells(found, n), metric) for n in losers}
        known = {n: spread for n, spread in theirs.items() if spread is not None}
        if ours is None or len(known) < len(theirs):
            continue
        holds = all(ours.mean > spread.mean + margin for spread in known.values())
        against = "; ".join(f"{called(plan, n)}: {percent(s)}" for n, s in known.items())
        claim = f"{words} ({networks.source} and {networks.target}), {NAMES[metric]}"
        alone = _by_category(plan, found, comparison, metric)
        yield Claim(claim, holds, f"{percent(ours)} against {against}. {alone}")


def _by_category(plan: Plan, found: Sequence[Cell], comparison: Comparison, metric: str) -> str:
    """Lists the categories in which a claim holds and those in which it does not."""
    _, winner, losers, margin = comparison
    holds: dict[bool, list[str]] = {True: [], False: []}
    for category in plan.categories:
        cells = [case_cells(found, name, category) for name in (winner, *losers)]
        ours, *theirs = (over_seeds(some, metric) for some in cells)
        if ours and None not in theirs:
            best = max(spread.mean for spread in theirs if spread)
            shown = f"{category} ({100 * ours.mean:.1f} against {100 * best:.1f})"
            holds[ours.mean > best + margin].append(shown)
    words = {True: "holds individually in", False: "fails in"}
    text = "; ".join(f"{words[k]} {', '.join(names)}" for k, names in holds.items() if names)
    return f"{text[:1].upper()}{text[1:]}." if text else ""
