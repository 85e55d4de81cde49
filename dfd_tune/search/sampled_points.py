"""Points that a sampler draws: what it knows is made anew from the search's records, so that resuming changes nothing.

The n-th draw depends on the search's seed, on n, and on what is known of the other points: their settings, and what
came of them or that they still run. Not for: which samplers there are (samplers.py), or grids (points.py).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from dfd_tune.analysis.importances import distributions
from dfd_tune.axes import Axis, Choice, Range, grid_points, is_explored, point_at
from dfd_tune.config import TrialConfig
from dfd_tune.criteria import CRITERIA
from dfd_tune.fit import SMALL_GRID
from dfd_tune.objectives import directions, values_of
from dfd_tune.plan import Plan
from dfd_tune.record import TrialRecord
from dfd_tune.samplers import AT_RANDOM, NUMBER, SAMPLERS, Draw, made
from dfd_tune.settings import Request

Point = tuple[str, TrialConfig]
"""Trial key and trial."""


class SampledPoints:
    """Points that an Optuna sampler asks for, until the number of trials is reached or a finite space is used up.

    Args:
        plan: of a sampled search.
        dataset_digest: part of every trial key.
        records: the search's trials so far; those without an end come first again.
    """

    at_once = False

    def __init__(self, plan: Plan, dataset_digest: str, records: Sequence[TrialRecord]):
        self._request = plan.request
        self._digest = dataset_digest
        self._wanted = plan.num_trials
        self._sampler = SAMPLERS[plan.request.space.sampler]
        self._criterion = CRITERIA[plan.request.choose_by]
        self._numbers: dict[str, int] = {}
        """Trial key -> place of its draw among all; of every point ever given."""
        self._used: set[int] = set()
        self._lowest = 0
        """No number below it is free."""
        self._known = Known(plan.request)
        self._again: list[Point] = []
        ordered = sorted(records, key=lambda record: (record.number is None, record.number, record.started or 0.0))
        for record in ordered:
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
        found = self._draw() or self._unseen()
        if found is not None:
            self._give(*found)
        return found

    def left(self) -> bool:
        """Whether trials are left, and a finite space has points that are not known yet."""
        if self._again:
            return True
        return len(self._numbers) < self._wanted and (self._rest is None or self._unseen() is not None)

    def tell(self, key: str, values: Sequence[float] | None) -> None:
        """What came of a point: a value for each objective, None where its trial FAILED."""
        if key in self._numbers:
            self._known.ended(self._numbers[key], values)

    def stopped_early(self, key: str, values: Mapping[int, float]) -> None:
        """How far a point came; it is none that failed, nor one with a value."""
        if key in self._numbers:
            self._known.stopped(self._numbers[key], values)

    def number_of(self, key: str) -> int | None:
        """The place of a point's draw among all, from 0; None of a point that was not drawn."""
        return self._numbers.get(key)

    def _give(self, key: str, config: TrialConfig, number: int | None = None) -> None:
        number = self._free() if number is None else number
        self._numbers[key] = number
        self._used.add(number)
        self._known.begun(number, vars(config))

    def _free(self) -> int:
        """The place of the next draw: the first that none has, as a stopped launch may have lost one."""
        while self._lowest in self._used:
            self._lowest += 1
        return self._lowest

    def _remember(self, record: TrialRecord) -> None:
        number = None if record.number in self._used else record.number
        config = TrialConfig(**record.config)
        self._give(record.key, config, number)
        number = self._numbers[record.key]
        if record.status == "FINISHED":
            self._known.ended(number, values_of(record.metrics, self._request.objectives, self._criterion))
        elif record.status == "STOPPED":
            self._known.stopped(number, self._criterion.by_epoch(record.history))
        elif record.status == "FAILED":
            self._known.ended(number, None)
        else:
            self._again.append((record.key, config))

    def _draw(self) -> Point | None:
        number = self._free()
        for repeated in range(self._sampler.attempts + AT_RANDOM.attempts):
            sampler = self._sampler if repeated < self._sampler.attempts else AT_RANDOM
            draw = _draw_of(self._request, self._known.space, number, repeated)
            config = self._request.trial(self._known.proposed(made(sampler, draw)))
            key = config.key(self._digest)
            if key not in self._numbers:
                return key, config
        return None

    def _unseen(self) -> Point | None:
        """A point of a finite space that was never given, if there is one."""
        while self._rest is not None and (self._next is None or self._next[0] in self._numbers):
            self._next = next(self._rest, None)
            if self._next is None:
                return None
        return self._next


class Known:
    """What a sampler knows of a search: an Optuna study in memory that holds its points alone, in the order they were
    given.

    What a sampler was asked in vain leaves no trace in it that a sampler sees.
    """

    def __init__(self, request: Request):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._explore = request.explore
        self.space = distributions(request.explore)
        """Explored setting -> Optuna's distribution."""
        self.study = optuna.create_study(directions=directions(request.objectives, CRITERIA[request.choose_by]))
        self._places: dict[int, int] = {}
        """Number of a draw -> that of its trial in the study."""

    def begun(self, number: int, config: Mapping[str, Any]) -> None:
        """A point was given, and will be run."""
        import optuna

        point = point_at(config, self._explore)
        self.study.add_trial(
            optuna.trial.create_trial(
                state=optuna.trial.TrialState.RUNNING,
                params=point,
                distributions={name: self.space[name] for name in point},
                user_attrs={NUMBER: number},
            )
        )
        self._places[number] = len(self.study.get_trials(deepcopy=False)) - 1

    def ended(self, number: int, values: Sequence[float] | None) -> None:
        """A point has these values, or FAILED."""
        import optuna

        failed = optuna.trial.TrialState.FAIL
        self.study.tell(self._places[number], values, state=failed if values is None else None)

    def stopped(self, number: int, values: Mapping[int, float]) -> None:
        """A point was stopped early, with these values by epoch, the last of which counts as its own."""
        import optuna

        place = self._places[number]
        trial = optuna.trial.Trial(self.study, self.study.get_trials(deepcopy=False)[place]._trial_id)
        for epoch, value in values.items():
            trial.report(value, epoch)
        self.study.tell(place, state=optuna.trial.TrialState.PRUNED)

    def proposed(self, sampler: Any) -> dict[str, Any]:
        """The point that a sampler proposes; it is not known to the study by that."""
        import optuna

        self.study.sampler = sampler
        trial = self.study.ask()
        point: dict[str, Any] = {}
        for name, axis in self._explore.items():
            if is_explored(axis, point):
                point[name] = _suggested(trial, name, self.space[name])
        self.study.tell(trial, state=optuna.trial.TrialState.FAIL)  # such a trial no sampler looks at
        return point


def _suggested(trial: Any, name: str, distribution: Any) -> Any:
    """A value of one axis."""
    from optuna.distributions import CategoricalDistribution, IntDistribution

    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(name, distribution.choices)
    suggest = trial.suggest_int if isinstance(distribution, IntDistribution) else trial.suggest_float
    return suggest(name, distribution.low, distribution.high, step=distribution.step, log=distribution.log)


def _draw_of(request: Request, space: Mapping[str, Any], number: int, repeated: int) -> Draw:
    """The draw of that number, once points were drawn `repeated` times that are known: see `SampledPoints`."""
    seed = int(np.random.SeedSequence((request.seed, number, repeated)).generate_state(1)[0])
    everywhere = {name: space[name] for name, axis in request.explore.items() if not axis.when}
    return Draw(search_seed=request.seed, number=number, repeated=repeated, seed=seed, space=everywhere)


def _all_points(request: Request, dataset_digest: str) -> Iterator[Point] | None:
    """Every point of a finite, small space, in an order that the seed decides; None of others."""
    values = [_finite(axis) for axis in request.explore.values()]
    size = 1
    for found in values:
        size *= SMALL_GRID + 1 if found is None else len(found)
    if size > SMALL_GRID:
        return None
    choices = {
        name: Choice(tuple(found or ()), axis.when)
        for (name, axis), found in zip(request.explore.items(), values, strict=True)
    }
    points = list(grid_points(choices))
    configs = (request.trial(points[place]) for place in np.random.default_rng(request.seed).permutation(len(points)))
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
