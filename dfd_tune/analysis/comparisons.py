"""Comparisons: what the test images say of a cell's chosen student beside its base network.

Not for: which points are compared (cells.py).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from dfd_tune.analysis.cells import Cell, cells_of
from dfd_tune.analysis.points import Interval, Point, interval_of, test_accuracies
from dfd_tune.record import SearchRecord, TrialRecord

Verdict = Literal[
    "better",
    "no significant difference",
    "worse",
    "too few seeds for a verdict",
    "not tested yet",
    "nothing to compare",
]

FEWEST_SEEDS = 3
"""For a verdict: two differences are equal now and then by chance, and their interval is then as good as nothing."""


@dataclass(frozen=True)
class Comparison:
    """A cell's base network and chosen student on low-resolution test images; None where they are not tested."""

    base: Interval | None
    distilled: Interval | None
    difference: Interval | None
    """Distilled − base, over pairs of the same seed."""
    gap_recovered: float | None
    """(distilled − base) / (HR baseline − base), over the same pairs; None where the HR baseline is not above the
    base."""
    verdict: Verdict


@dataclass(frozen=True)
class SeedsOfBest:
    """The cell of a search's best student, and what the test images say of it over several seeds."""

    cell: Cell
    chosen: Point
    """Its distilled point; of it, or of the λ = 0 point, the best student is one seed."""
    comparison: Comparison
    difference: Interval
    """The comparison's, over at least two seeds."""


def compare(search: SearchRecord, cell: Cell) -> Comparison:
    """What the test images say of a cell; nothing where its trials are not tested yet."""
    base, distilled = (test_accuracies(search, point) for point in (cell.base, cell.chosen))
    means = [None if values is None else interval_of(list(values.values())) for values in (base, distilled)]
    if base is None or distilled is None:
        waits = (cell.base is not None and base is None) or (cell.chosen is not None and distilled is None)
        return Comparison(means[0], means[1], None, None, "not tested yet" if waits else "nothing to compare")
    pairs = [distilled[seed] - base[seed] for seed in distilled if seed in base]
    if not pairs:
        return Comparison(means[0], means[1], None, None, "nothing to compare")
    difference = interval_of(pairs)
    high = cell.teacher.test_accuracy if cell.teacher is not None else None
    plain = statistics.fmean(base[seed] for seed in distilled if seed in base)
    gap = None if high is None or high <= plain else difference.mean / (high - plain)
    return Comparison(means[0], means[1], difference, gap, verdict_of(difference))


def seeds_of_best(search: SearchRecord, trials: Sequence[TrialRecord]) -> SeedsOfBest | None:
    """The best student's cell with all its seeds.

    None where there is one seed; where the best student, being plain, stands in several cells; and where it stands in
    none, as the protocol `paper` chose the cell's λ otherwise.
    """
    key = search.best.key if search.best is not None else None
    cells = cells_of(search, trials)
    holding = [cell for cell in cells if _holds(cell.chosen, key)]
    if not holding and search.protocol == "validation":
        holding = [cell for cell in cells if _holds(cell.base, key)]
    if len(holding) != 1 or holding[0].chosen is None:
        return None
    comparison = compare(search, holding[0])
    if comparison.difference is None or comparison.difference.seeds < 2:
        return None
    return SeedsOfBest(holding[0], holding[0].chosen, comparison, comparison.difference)


def _holds(point: Point | None, key: str | None) -> bool:
    return point is not None and any(trial.key == key for trial in point.trials)


def verdict_of(difference: Interval) -> Verdict:
    """What a paired difference says, by its 95 % interval."""
    if difference.half is None or difference.seeds < FEWEST_SEEDS:
        return "too few seeds for a verdict"
    if difference.mean - difference.half > 0:
        return "better"
    return "worse" if difference.mean + difference.half < 0 else "no significant difference"
