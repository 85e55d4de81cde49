"""Which point of a space comes next: a grid's in order, a sampled space's as Optuna's samplers ask.

Every source is asked and told, knows trial keys, proposes no point twice, and can be made again from the records of an
earlier launch. Not for: when a point is run (agenda.py), or what came of it (ledger.py).
"""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from dfd_tune.analysis.importances import distributions
from dfd_tune.config import TrialConfig
from dfd_tune.criteria import CRITERIA, Criterion
from dfd_tune.fit import SMALL_GRID
from dfd_tune.plan import Plan
from dfd_tune.record import TrialRecord
from dfd_tune.samplers import AT_RANDOM, SAMPLERS, Draw, made
from dfd_tune.settings import Request
from dfd_tune.space import Axis, Choice, Range, grid_points, in_space

Point = tuple[str, TrialConfig]
"""Trial key and trial."""


class Points(Protocol):
    """A source of points to try."""

    at_once: bool
    """Whether points may be taken long before they are run, as they do not depend on what is told."""

    def ask(self) -> Point | None:
        """The next point, which was never given before; None when there is none left."""

    def left(self) -> bool:
        """Whether `ask` has a point to give."""

    def tell(self, key: str, value: float | None) -> None:
        """A point's value of what the search chooses by; None where its trial FAILED."""

    def stopped_early(self, key: str, values: Mapping[int, float]) -> None:
        """A point's trial was stopped early, with these values by epoch."""


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

    def tell(self, key: str, value: float | None) -> None:
        """A grid learns nothing."""

    def stopped_early(self, key: str, values: Mapping[int, float]) -> None:
        """Nor does it here."""


class SampledPoints:
    """Points that an Optuna sampler asks for, until the number of trials is reached or a finite space is used up.

    The study lives in memory and is made anew from the records: the store is the truth. The n-th draw depends on the
    seed, on n and on what was told, so that a search continued draws as one that was never interrupted.

    Args:
        plan: of a sampled search.
        dataset_digest: part of every trial key.
        records: the search's trials so far, in the order they were begun; those without an end come first again.
    """

    at_once = False

    def __init__(self, plan: Plan, dataset_digest: str, records: Sequence[TrialRecord]):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._request = plan.request
        self._digest = dataset_digest
        self._wanted = plan.num_trials
        self._space = distributions(plan.request.explore)
        self._sampler = SAMPLERS[plan.request.space.sampler]
        self._criterion = CRITERIA[plan.request.choose_by]
        direction = "maximize" if self._criterion.larger_is_better else "minimize"
        self._study = optuna.create_study(direction=direction)
        self._asked: dict[str, Any] = {}
        """Trial key -> Optuna's trial, of points that are out."""
        self._seen: dict[str, float | None] = {}
        """Every key ever given, with its value once that is known."""
        self._params: dict[str, dict[str, Any]] = {}
        """Key -> point, of those that the study did not ask for itself and that are out."""
        self._again: list[Point] = []
        for record in records:
            self._remember(record)
        self._rest = _all_points(plan.request, dataset_digest)
        """Of a finite space, its points, as far as they were not gone through yet; None of others."""
        self._next: Point | None = None

    def ask(self) -> Point | None:
        """A new point, or one that an earlier launch did not finish."""
        if self._again:
            return self._again.pop(0)
        if not self.left():
            return None
        return self._draw() or self._one_of_the_rest()

    def left(self) -> bool:
        """Whether trials are left, and a finite space has points that are not known yet."""
        if self._again:
            return True
        return len(self._seen) < self._wanted and (self._rest is None or self._unseen() is not None)

    def tell(self, key: str, value: float | None) -> None:
        """Tell the sampler what came of a point; what it did not ask for itself is added to what it knows."""
        import optuna

        self._seen[key] = value
        trial = self._asked.pop(key, None)
        failed = optuna.trial.TrialState.FAIL
        if trial is not None:
            self._study.tell(trial, value, state=None if value is not None else failed)
        elif value is not None and key in self._params:
            self._add(self._params.pop(key), value)

    def stopped_early(self, key: str, values: Mapping[int, float]) -> None:
        """Tell the sampler how far a point came; it is none that failed, nor one with a value."""
        import optuna

        self._seen[key] = None
        trial = self._asked.pop(key, None)
        if trial is not None:
            for epoch, value in values.items():
                trial.report(value, epoch)
            self._study.tell(trial, state=optuna.trial.TrialState.PRUNED)
        elif key in self._params:
            self._add_stopped(self._params.pop(key), values)

    def _remember(self, record: TrialRecord) -> None:
        point = {name: record.config[name] for name in self._request.explore}
        config = TrialConfig(**record.config)
        if record.status == "FINISHED":
            value = self._criterion.of(record.metrics)
            self._seen[record.key] = value
            self._add(point, value)
        elif record.status == "STOPPED":
            self._seen[record.key] = None
            self._add_stopped(point, by_epoch(record.history, self._criterion))
        elif record.status == "FAILED":
            self._seen[record.key] = None
        else:
            self._seen[record.key] = None
            self._params[record.key] = point
            self._again.append((record.key, config))

    def _add(self, point: Mapping[str, Any], value: float) -> None:
        import optuna

        self._study.add_trial(optuna.trial.create_trial(params=dict(point), distributions=self._space, value=value))

    def _add_stopped(self, point: Mapping[str, Any], values: Mapping[int, float]) -> None:
        import optuna

        self._study.add_trial(
            optuna.trial.create_trial(
                params=dict(point),
                distributions=self._space,
                state=optuna.trial.TrialState.PRUNED,
                value=values[max(values)] if values else None,  # as `tell` has it
                intermediate_values=dict(values),
            )
        )

    def _draw(self) -> Point | None:
        import optuna

        for repeated in range(self._sampler.attempts + AT_RANDOM.attempts):
            sampler = self._sampler if repeated < self._sampler.attempts else AT_RANDOM
            self._study.sampler = made(sampler, _draw_of(self._request, self._space, len(self._seen), repeated))
            trial = self._study.ask(self._space)
            config = self._request.trial(trial.params)
            key = config.key(self._digest)
            if key not in self._seen:
                self._seen[key] = None
                self._asked[key] = trial
                return key, config
            value = self._seen[key]
            self._study.tell(trial, value, state=None if value is not None else optuna.trial.TrialState.FAIL)
        return None

    def _one_of_the_rest(self) -> Point | None:
        found = self._unseen()
        if found is not None:
            key, config = found
            self._seen[key] = None
            self._params[key] = {name: getattr(config, name) for name in self._request.explore}
        return found

    def _unseen(self) -> Point | None:
        """A point of a finite space that was never given, if there is one."""
        while self._rest is not None and (self._next is None or self._next[0] in self._seen):
            self._next = next(self._rest, None)
            if self._next is None:
                return None
        return self._next


def by_epoch(history: Iterable[Mapping[str, float]], criterion: Criterion) -> dict[int, float]:
    """A trial's values of a criterion by epoch, of the epochs that have one."""
    return {int(entry["epoch"]): criterion.of(entry) for entry in history if criterion.column in entry}


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


def _draw_of(request: Request, space: Mapping[str, Any], points: int, repeated: int) -> Draw:
    """The draw after `points` points, the last of which were known `repeated` times: see `SampledPoints`."""
    seed = int(np.random.SeedSequence((request.seed, points, repeated)).generate_state(1)[0])
    return Draw(search_seed=request.seed, number=points + repeated, seed=seed, space=space)


def _all_points(request: Request, dataset_digest: str) -> Iterator[Point] | None:
    """Every point of a finite, small space, in an order that the seed decides; None of others."""
    values = [_finite(axis) for axis in request.explore.values()]
    size = 1
    for found in values:
        size *= SMALL_GRID + 1 if found is None else len(found)
    if size > SMALL_GRID:
        return None
    choices = {name: Choice(tuple(found or ())) for name, found in zip(request.explore, values, strict=True)}
    points = list(grid_points(choices))
    configs = (request.trial(points[place]) for place in np.random.default_rng(request.seed).permutation(size))
    return ((config.key(dataset_digest), config) for config in configs)


def _finite(axis: Axis) -> list[Any] | None:
    """The values of an axis; None where it has no end of them."""
    if isinstance(axis, Choice):
        return list(axis.values)
    assert isinstance(axis, Range)
    if axis.step is not None:
        count = int((axis.high - axis.low) / axis.step + 1e-9) + 1
        return [axis.low + number * axis.step for number in itertools.islice(range(SMALL_GRID + 1), count)]
    if isinstance(axis.low, int):
        return list(range(int(axis.low), int(axis.high) + 1))[: SMALL_GRID + 1]
    return None
