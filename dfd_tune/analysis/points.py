"""Points: trials that differ in nothing but their seed, taken together, with their means over seeds.

Not for: which point is best (choice.py), or differences between points (comparisons.py).
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal

from dfd_tune.criteria import Criterion
from dfd_tune.record import SearchRecord, TrialRecord

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """A mean over seeds, a fraction, with half of its 95 % interval (Student's t); None for a single seed."""

    mean: float
    half: float | None
    seeds: int


@dataclass(frozen=True)
class Point:
    """One configuration and its finished trials, one a seed."""

    config: dict[str, Any]
    """That of its first trial."""
    trials: tuple[TrialRecord, ...]
    lacking: int = 0
    """How many of its trials, as far as they were begun, have not finished."""

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

    def value(self, criterion: Criterion) -> float:
        """The mean of a criterion over the seeds."""
        return statistics.fmean(criterion.of(trial.metrics) for trial in self.trials)

    def interval(self, criterion: Criterion) -> Interval:
        """Likewise, with its interval."""
        return interval_of([criterion.of(trial.metrics) for trial in self.trials])


def half_width(values: Sequence[float]) -> float | None:
    """Half of the 95 % interval of the mean of `values`, from Student's t; None for fewer than two."""
    if len(values) < 2:
        return None
    return _quantile(len(values) - 1) * statistics.stdev(values) / len(values) ** 0.5


@lru_cache
def _quantile(degrees_of_freedom: int) -> float:
    from scipy.special import stdtrit

    return float(stdtrit(degrees_of_freedom, 0.5 + CONFIDENCE / 2))


def points_of(trials: Sequence[TrialRecord]) -> list[Point]:
    """The points of the search itself, of which a trial has finished: grouped by everything but `seed`, in the order of
    their first finished trials. What a confirmation trains is none of them."""
    groups: dict[frozenset[tuple[str, Any]], list[TrialRecord]] = {}
    lacking: Counter[frozenset[tuple[str, Any]]] = Counter()
    for trial in trials:
        if trial.stage != "search":
            continue
        rest = {**trial.config}
        rest.pop("seed", None)
        key = frozenset(rest.items())
        if trial.status == "FINISHED":
            groups.setdefault(key, []).append(trial)
        else:
            lacking[key] += 1
    return [Point(group[0].config, tuple(group), lacking[key]) for key, group in groups.items()]


def lambda_of(point: Point) -> float:
    """The point's λ."""
    return float(point.config["lambda_"])


def tested_accuracy(search: SearchRecord, point: Point) -> Interval | None:
    """Mean test accuracy over a point's seeds; None unless all of them are tested."""
    values = test_accuracies(search, point)
    return None if values is None else interval_of(list(values.values()))


def tested_score(search: SearchRecord, point: Point, name: Literal["balanced_accuracy", "macro_f1"]) -> Interval | None:
    """Mean of another score on test images over a point's seeds; None unless it is recorded of all of them."""
    records = [search.tests.get(trial.key) for trial in point.trials]
    values = [None if record is None else getattr(record, name) for record in records]
    known = [float(value) for value in values if value is not None]
    return interval_of(known) if len(known) == len(values) else None


def test_accuracies(search: SearchRecord, point: Point | None) -> dict[int, float] | None:
    """Test accuracy by seed; None unless all trials of the point are tested."""
    if point is None or not all(trial.key in search.tested for trial in point.trials):
        return None
    return {trial.config["seed"]: search.tested[trial.key] for trial in point.trials}


def interval_of(values: Sequence[float]) -> Interval:
    """The mean of one value a seed, with its interval."""
    return Interval(statistics.fmean(values), half_width(values), len(values))
