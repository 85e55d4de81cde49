"""Verdicts: which of several comparisons are beyond chance, all of them taken together.

A comparison of at least five fresh seeds, recorded image by image, has a p value (paired.py); Holm's method (Holm 1979,
Scandinavian Journal of Statistics 6:65-70) adjusts these for their number, so that among all verdicts of a table one
that is wrong by chance comes up in at most 5 % of tables. Not for: the comparisons themselves (comparisons.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dfd_tune.analysis.cells import Cell, cells_of
from dfd_tune.analysis.comparisons import Comparison, compare, pair_of
from dfd_tune.analysis.points import Interval, Point
from dfd_tune.record import SearchRecord, TrialRecord

Verdict = Literal[
    "better",
    "no significant difference",
    "worse",
    "too few seeds for a verdict",
    "no verdict without each image",
    "no verdict: seeds that the choice has seen",
    "not confirmed",
    "not tested yet",
    "nothing to compare",
]

FEWEST_SEEDS = 5
"""For a verdict: with fewer, what the seeds themselves say of their spread is hardly more than a guess."""
LEVEL = 0.05


@dataclass(frozen=True)
class Judgement:
    """What follows of a comparison, seen among others."""

    comparison: Comparison
    verdict: Verdict
    p_value: float | None
    """Adjusted by Holm's method; None where there is no verdict on the difference."""


@dataclass(frozen=True)
class Headline:
    """What a search comes to: its one cell that says most."""

    cell: Cell
    student: Point
    """The distilled students that were compared: trained anew or, where nothing is confirmed, as chosen."""
    judgement: Judgement
    """Among those of all cells."""
    difference: Interval
    """The comparison's."""


def holm(p_values: Sequence[float]) -> list[float]:
    """p values adjusted for their number, in the order given."""
    adjusted = [1.0] * len(p_values)
    least = 0.0
    for rank, place in enumerate(sorted(range(len(p_values)), key=lambda place: p_values[place])):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = least
    return adjusted


def judge(comparisons: Sequence[Comparison]) -> list[Judgement]:
    """A verdict on each of a table's comparisons, in the order given; Holm's method counts those that can have one."""
    raw = {
        place: comparison.paired.p_value
        for place, comparison in enumerate(comparisons)
        if comparison.paired is not None
        and comparison.fresh
        and comparison.paired.seeds >= FEWEST_SEEDS
        and comparison.paired.p_value is not None
    }
    adjusted = dict(zip(raw, holm(list(raw.values())), strict=True))
    return [
        Judgement(comparison, _verdict(comparison, adjusted.get(place)), adjusted.get(place))
        for place, comparison in enumerate(comparisons)
    ]


def judge_cells(search: SearchRecord, cells: Sequence[Cell]) -> list[Judgement]:
    """A verdict on each cell's student beside its base network."""
    return judge([compare(search, cell) for cell in cells])


def _verdict(comparison: Comparison, p_value: float | None) -> Verdict:
    if comparison.difference is None:
        assert comparison.state != "compared"
        return comparison.state
    if not comparison.fresh:
        return "no verdict: seeds that the choice has seen"
    if comparison.difference.seeds < FEWEST_SEEDS:
        return "too few seeds for a verdict"
    if p_value is None:
        return "no verdict without each image"
    if p_value >= LEVEL:
        return "no significant difference"
    return "better" if comparison.difference.mean > 0 else "worse"


def headline(search: SearchRecord, trials: Sequence[TrialRecord]) -> Headline | None:
    """The comparison to name first: of the cells that have one, that of the students that are best on validation
    images, by what the search chooses by. None where nothing is compared."""
    cells = cells_of(search, trials)
    found = []
    for cell, judgement in zip(cells, judge_cells(search, cells), strict=True):
        student, difference = pair_of(search, cell)[0], judgement.comparison.difference
        if student is not None and difference is not None:
            found.append(Headline(cell, student, judgement, difference))
    by = search.criterion
    return min(found, key=lambda one: by.cost(one.student.value(by)), default=None)
