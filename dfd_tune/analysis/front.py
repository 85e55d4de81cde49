"""The front of a search with two objectives: the points of which none is both as accurate and as cheap as another.

Not for: what a cost is (objectives.py), or which student is chosen (choice.py).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from dfd_tune.analysis.choice import complete
from dfd_tune.analysis.points import Point, points_of
from dfd_tune.objectives import COSTS
from dfd_tune.record import SearchRecord, TrialRecord


def second_objective(search: SearchRecord) -> str | None:
    """The cost that the search is after beside accuracy; None if it is after accuracy alone."""
    return search.objectives[1] if len(search.objectives) > 1 else None


def cost_of_point(point: Point, cost: str) -> float:
    """A point's mean cost over its seeds, which differ in measured ones alone."""
    return statistics.fmean(trial.metrics[COSTS[cost].metric] for trial in point.trials)


def front_of(search: SearchRecord, trials: Sequence[TrialRecord]) -> list[Point]:
    """The points that no other one dominates, by what the search chooses by and by cost, the cheapest first.

    Of points equal in both, the first is on the front. Points of which seeds are missing are left out. None of a search
    that is after accuracy alone.
    """
    cost = second_objective(search)
    if cost is None:
        return []
    points, by = complete(search, points_of(trials), limited=False), search.criterion
    front: list[Point] = []
    for point in sorted(points, key=lambda point: (cost_of_point(point, cost), by.cost(point.value(by)))):
        if not front or by.cost(point.value(by)) < by.cost(front[-1].value(by)):
            front.append(point)
    return front
