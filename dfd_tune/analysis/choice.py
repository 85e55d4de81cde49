"""The choice of the best: of points by validation images or, under the protocol `paper`, by test images; of students.

Not for: which points are there to be chosen from (cells.py).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

from dfd_tune.analysis.points import Point, lambda_of, points_of, tested_accuracy
from dfd_tune.axes import Choice, Range, axis_from_json
from dfd_tune.objectives import MOST_ACCURATE, choose_from
from dfd_tune.record import SearchRecord, TrialRecord

EDGE = 0.05
"""Of a range, this share at either end is its edge."""
DIGITS = 12
"""Means that agree to so many digits are the same: they come of the same numbers, added up otherwise."""


def ranked(search: SearchRecord, points: Sequence[Point]) -> list[Point]:
    """Best first: by what the search chooses by; of equally good ones the simpler first, which is that of the smaller
    λ; and then by validation loss."""
    by = search.criterion
    return sorted(points, key=lambda point: (by.cost(round(point.value(by), DIGITS)), lambda_of(point), point.val_loss))


def complete(search: SearchRecord, points: Sequence[Point], *, limited: bool = True) -> list[Point]:
    """Those that may be chosen: whose planned seeds have all finished, as of a point that lost some, the others are no
    fair sample, and which cost no more than the search's limit.

    Args:
        search: whose points they are.
        points: of which some are taken.
        limited: whether the limit on costs counts.
    """
    axis = search.explored.get("seed")
    picked = any("seed" in wanted for wanted in search.request.get("only", ()))
    planned = len(axis) if isinstance(axis, list) and not picked else 1
    limit = choose_from(search.choose) if limited else MOST_ACCURATE
    return [
        point
        for point in points
        if not point.lacking and len(point.trials) >= planned and limit.allows(point.trials[0].metrics)
    ]


def best_trial(search: SearchRecord, trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """The student to deploy, chosen on validation images; None if there is none.

    The best of those that were trained anew, be it with distillation or without. Where nothing is confirmed, or before
    that, the best trial of the best point: a point is chosen by its mean, so a lucky seed alone does not win.
    """
    anew = {key for cell in search.confirmation for arm in ("student", "plain") for key in cell.arms.get(arm, ())}
    limit = choose_from(search.choose)
    students = [
        trial for trial in trials if trial.key in anew and trial.status == "FINISHED" and limit.allows(trial.metrics)
    ]
    if not students:
        order = ranked(search, complete(search, points_of(trials)))
        students = list(order[0].trials) if order else []
    by = search.criterion
    return min(
        students,
        key=lambda trial: (by.cost(by.of(trial.metrics)), trial.config["lambda_"], trial.metrics["val_loss"]),
        default=None,
    )


def chosen_of(search: SearchRecord, distilled: Sequence[Point]) -> Point | None:
    """Of a cell's distilled points the best one; None if there is none whose seeds have all finished."""
    if search.protocol == "paper":
        return best_tested(search, distilled)
    return next(iter(ranked(search, complete(search, distilled))), None)


def best_tested(search: SearchRecord, points: Sequence[Point]) -> Point | None:
    """Of the points that may be chosen, that of the best mean accuracy on test images; None if none is tested."""
    limit = choose_from(search.choose)
    allowed = [point for point in points if limit.allows(point.trials[0].metrics)]
    tested = [(found.mean, point) for point in allowed if (found := tested_accuracy(search, point)) is not None]
    return max(tested, key=lambda pair: pair[0])[1] if tested else None


def edge_of(search: SearchRecord, lambda_: float) -> Literal["smallest", "largest"] | None:
    """At which end of the explored values of λ above 0 the chosen one lies, if at one: the best may lie beyond it."""
    if "lambda_" not in search.explored:
        return None
    axis = axis_from_json(search.explored["lambda_"])
    if isinstance(axis, Choice):
        values = [float(value) for value in axis.values if value > 0]
        if len(values) < 2:
            return None
        return "smallest" if lambda_ == min(values) else "largest" if lambda_ == max(values) else None
    place = _place(axis, lambda_)
    return "smallest" if place < EDGE else "largest" if place > 1 - EDGE else None


def _place(axis: Range, value: float) -> float:
    """Where a value lies in a range, 0..1."""
    low, high = axis.low, axis.high
    if axis.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low)
