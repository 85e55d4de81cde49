"""Points: trials that differ in nothing but their seed, taken together; and the choice of the best.

Not for: showing them (tables.py, figures/).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dfd_tune.record import TrialRecord

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Point:
    """One configuration and its finished trials, one a seed."""

    config: dict[str, Any]
    """That of its first trial."""
    trials: tuple[TrialRecord, ...]

    @property
    def val_accuracy(self) -> float:
        """Mean validation accuracy over the seeds, a fraction."""
        return statistics.fmean(trial.metrics["val_accuracy"] for trial in self.trials)

    @property
    def val_loss(self) -> float:
        """Mean validation cross entropy over the seeds."""
        return statistics.fmean(trial.metrics["val_loss"] for trial in self.trials)

    @property
    def half_width(self) -> float | None:
        """Half of the 95 % interval of the mean, from Student's t; None for a single seed."""
        return half_width([trial.metrics["val_accuracy"] for trial in self.trials])


def half_width(values: Sequence[float]) -> float | None:
    """Half of the 95 % interval of the mean of `values`, from Student's t; None for fewer than two."""
    if len(values) < 2:
        return None
    return _quantile(len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5


@lru_cache
def _quantile(degrees_of_freedom: int) -> float:
    from scipy.stats import t

    return float(t.ppf(0.5 + CONFIDENCE / 2, degrees_of_freedom))


def points_of(trials: Sequence[TrialRecord]) -> list[Point]:
    """The finished trials, grouped by everything but `seed`, in the order of their first trials."""
    groups: dict[frozenset[tuple[str, Any]], list[TrialRecord]] = {}
    for trial in trials:
        if trial.status == "FINISHED":
            rest = {**trial.config}
            rest.pop("seed", None)
            groups.setdefault(frozenset(rest.items()), []).append(trial)
    return [Point(group[0].config, tuple(group)) for group in groups.values()]


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
