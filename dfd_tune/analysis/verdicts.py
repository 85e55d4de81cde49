"""Verdicts: which of several comparisons are beyond chance, all of them taken together.

A comparison of at least five seeds, recorded image by image, has a p value (paired.py); Holm's method (Holm 1979,
Scandinavian Journal of Statistics 6:65-70) adjusts these for their number, so that among all verdicts of a table one
that is wrong by chance comes up in at most 5 % of tables. Not for: the comparisons themselves (comparisons.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dfd_tune.analysis.cells import Cell, cells_of
from dfd_tune.analysis.comparisons import Comparison, compare
from dfd_tune.analysis.points import Interval, Point
from dfd_tune.record import SearchRecord, TrialRecord

Verdict = Literal[
    "better",
    "no significant difference",
    "worse",
    "too few seeds for a verdict",
    "no verdict without each image",
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
class SeedsOfBest:
    """The cell of a search's best student, and what the test images say of it over several seeds."""

    cell: Cell
    chosen: Point
    """Its distilled point; of it, or of the λ = 0 point, the best student is one seed."""
    judgement: Judgement
    """Among those of all cells."""
    difference: Interval
    """The comparison's, over at least two seeds."""


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
        and comparison.paired.seeds >= FEWEST_SEEDS
        and comparison.paired.p_value is not None
    }
    adjusted = dict(zip(raw, holm(list(raw.values())), strict=True))
    return [
        Judgement(comparison, _verdict(comparison, adjusted.get(place)), adjusted.get(place))
        for place, comparison in enumerate(comparisons)
    ]


def judge_cells(search: SearchRecord, cells: Sequence[Cell]) -> list[Judgement]:
    """A verdict on each cell's chosen student beside its base network."""
    return judge([compare(search, cell) for cell in cells])


def _verdict(comparison: Comparison, p_value: float | None) -> Verdict:
    if comparison.difference is None:
        assert comparison.state != "compared"
        return comparison.state
    if comparison.difference.seeds < FEWEST_SEEDS:
        return "too few seeds for a verdict"
    if p_value is None:
        return "no verdict without each image"
    if p_value >= LEVEL:
        return "no significant difference"
    return "better" if comparison.difference.mean > 0 else "worse"


def seeds_of_best(search: SearchRecord, trials: Sequence[TrialRecord]) -> SeedsOfBest | None:
    """The best student's cell with all its seeds.

    None where there is one seed; where the best student, being plain, stands in several cells; and where it stands in
    none, as the protocol `paper` chose the cell's λ otherwise.
    """
    key = search.best.key if search.best is not None else None
    cells = cells_of(search, trials)
    holding = [place for place, cell in enumerate(cells) if _holds(cell.chosen, key)]
    if not holding and search.protocol == "validation":
        holding = [place for place, cell in enumerate(cells) if _holds(cell.base, key)]
    if len(holding) != 1:
        return None
    cell = cells[holding[0]]
    judgement = judge_cells(search, cells)[holding[0]]
    difference = judgement.comparison.difference
    if cell.chosen is None or difference is None or difference.seeds < 2:
        return None
    return SeedsOfBest(cell, cell.chosen, judgement, difference)


def _holds(point: Point | None, key: str | None) -> bool:
    return point is not None and any(trial.key == key for trial in point.trials)
