"""The front of a search with two objectives in words, and what its limit on costs leaves.

Not for: drawing it (figures/front.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from dfd_tune.analysis.front import cost_of_point, front_of, second_objective
from dfd_tune.analysis.points import points_of
from dfd_tune.axes import explored_at
from dfd_tune.objectives import COSTS, amount, choose_from
from dfd_tune.record import SearchRecord, TrialRecord, describe_point


def front_line(search: SearchRecord, trials: Sequence[TrialRecord]) -> str | None:
    """The two ends of the front, and how one of its students is taken; None of a search after accuracy alone."""
    cost, front = second_objective(search), front_of(search, trials)
    if cost is None or not front:
        return None
    by = search.criterion
    ends = [
        f"{by.words} {by.text(point.value(by), 2)} on validation images with {amount(cost, cost_of_point(point, cost))}"
        for point in (front[:1] if len(front) == 1 else (front[0], front[-1]))
    ]
    count = f"{len(front)} point{'' if len(front) == 1 else 's'}"
    return (
        f"On the front of {by.words} and {cost}: {count}, {' to '.join(ends)}; to deploy a smaller one: "
        f"`dfd-tune resume {search.search} --choose 'front:{cost}<=NUMBER'`."
    )


def limit_line(search: SearchRecord, trials: Sequence[TrialRecord]) -> str | None:
    """What the limit on costs leaves out, where it leaves out all; None elsewhere."""
    limit = choose_from(search.choose)
    finished = [trial for trial in trials if trial.status == "FINISHED"]
    if limit.cost is None or not finished or any(limit.allows(trial.metrics) for trial in finished):
        return None
    least = min(trial.metrics[COSTS[limit.cost].metric] for trial in finished)
    return (
        f"Nothing is chosen: no student has {limit.in_words()}; the smallest has {amount(limit.cost, least)}. Raise "
        f"the limit, as in `dfd-tune resume {search.search} --choose accuracy`."
    )


def front_objects(search: SearchRecord, trials: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    """The front for `results --format json`, the cheapest point first; accuracies are fractions."""
    cost = second_objective(search)
    return [
        {
            "point": describe_point(point.config, explored_at(point.config, search.explored)),
            "trials": [trial.key for trial in point.trials],
            search.criterion.column: point.value(search.criterion),
            str(cost): cost_of_point(point, cost),
        }
        for point in front_of(search, trials)
        if cost is not None
    ]


def cost_columns(search: SearchRecord, trials: Sequence[TrialRecord]) -> tuple[list[str], dict[int, list[str]]]:
    """Headers of the ranking's columns on costs, and by the id of a point's first trial what stands there."""
    cost = second_objective(search)
    if cost is None:
        return [], {}
    on_front = {id(point.trials[0]) for point in front_of(search, trials)}
    rows = {}
    for point in points_of(trials):
        value = cost_of_point(point, cost)
        text = f"{1e3 * value:.3g}" if COSTS[cost].unit else f"{value:,.0f}"
        first = id(point.trials[0])
        rows[first] = [text, "front" if first in on_front else ""]
    return [f"{cost}, ms" if COSTS[cost].unit else cost, "front"], rows
