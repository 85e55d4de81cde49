"""The choice of the best: of points by validation images or, under the protocol `paper`, by test images; of trials.

Not for: which points are there to be chosen from (cells.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from dfd_tune.analysis.points import Point, points_of, tested_accuracy
from dfd_tune.record import SearchRecord, TrialRecord


def ranked(points: Sequence[Point]) -> list[Point]:
    """Best first: by validation accuracy and, where small validation sets tie, by validation loss."""
    return sorted(points, key=lambda point: (-point.val_accuracy, point.val_loss))


def best_trial(trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """The best trial of the best point; None if nothing is finished.

    The point is chosen by its mean over seeds, so a lucky seed alone does not win.
    """
    order = ranked(points_of(trials))
    if not order:
        return None
    return min(order[0].trials, key=lambda trial: (-trial.metrics["val_accuracy"], trial.metrics["val_loss"]))


def chosen_of(search: SearchRecord, distilled: Sequence[Point]) -> Point | None:
    """Of a cell's distilled points the best one; None if there is none."""
    if search.protocol == "paper":
        return best_tested(search, distilled)
    return max(distilled, key=lambda point: (point.val_accuracy, -point.val_loss), default=None)


def best_tested(search: SearchRecord, points: Sequence[Point]) -> Point | None:
    """The point of the best mean accuracy on test images; None if none is tested."""
    tested = [(found.mean, point) for point in points if (found := tested_accuracy(search, point)) is not None]
    return max(tested, key=lambda pair: pair[0])[1] if tested else None
