"""Which point of a space comes next: a grid's in order, a sampled space's as its sampler asks.

Every source is asked and told, knows trial keys, proposes no point twice, and can be made again from the records of an
earlier launch. Not for: drawing points (sampled_points.py), when a point is run (agenda.py), or what came of it
(ledger.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from dfd_tune.axes import in_space
from dfd_tune.plan import Plan
from dfd_tune.record import TrialRecord
from dfd_tune.search.sampled_points import Point, SampledPoints


class Points(Protocol):
    """A source of points to try."""

    at_once: bool
    """Whether points may be taken long before they are run, as they do not depend on what is told."""

    def ask(self) -> Point | None:
        """The next point, which was never given before; None when there is none left."""

    def left(self) -> bool:
        """Whether `ask` has a point to give."""

    def tell(self, key: str, values: Sequence[float] | None) -> None:
        """What came of a point, a value for each objective; None where its trial FAILED."""

    def stopped_early(self, key: str, values: Mapping[int, float]) -> None:
        """A point's trial was stopped early, with these values by epoch."""

    def number_of(self, key: str) -> int | None:
        """The place of a point's draw among all, from 0; None of a point that was not drawn."""


class GridPoints:
    """The points of a grid, in the order of the plan."""

    at_once = True

    def __init__(self, plan: Plan, known: Iterable[str]):
        known = set(known)
        self._left = deque((key, config) for key, config in plan.trials.items() if key not in known)

    def ask(self) -> Point | None:
        """The next point of the grid."""
        return self._left.popleft() if self._left else None

    def left(self) -> bool:
        """Whether the grid has another point."""
        return bool(self._left)

    def tell(self, key: str, values: Sequence[float] | None) -> None:
        """A grid learns nothing."""

    def stopped_early(self, key: str, values: Mapping[int, float]) -> None:
        """Nor does it here."""

    def number_of(self, key: str) -> int | None:
        """Its points are planned, not drawn."""
        return None


def points_for(plan: Plan, dataset_digest: str, records: Mapping[str, TrialRecord]) -> Points:
    """The source of a plan's points.

    Args:
        plan: of the search.
        dataset_digest: part of every trial key.
        records: the search's trials so far by key; those that have ended are not proposed again.
    """
    if plan.trials:
        done = (key for key, record in records.items() if record.status in ("FINISHED", "STOPPED", "FAILED"))
        return GridPoints(plan, done)
    sampled = [
        record
        for record in records.values()
        if record.stage == "search" and in_space(record.config, plan.request.explore)
    ]
    return SampledPoints(plan, dataset_digest, sampled)
