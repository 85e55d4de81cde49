"""The schedulers, a row each: which trials of a search are stopped early. Ray Tune's own, which stop and never pause.

A scheduler is its row here; nothing else names it. Ray is imported once one is made. Not for: what a decision leads to
(search/early_stopping.py).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from dfd_tune.criteria import CRITERIA, DEFAULT, Criterion
from dfd_tune.errors import unknown_name

NONE = "none"
EPOCH = "epoch"


@dataclass(frozen=True, kw_only=True)
class Course:
    """The trials that a scheduler is for."""

    epochs: int
    """Of the longest."""
    grace_epochs: int
    """Before these are over, none is stopped."""
    factor: int
    """ASHA: of those that have come so far, one in so many goes on."""
    criterion: Criterion = CRITERIA[DEFAULT]
    """By what they are compared."""

    @property
    def mode(self) -> str:
        """Ray's word for which way that is better."""
        return "max" if self.criterion.larger_is_better else "min"


@dataclass(frozen=True, kw_only=True)
class Scheduler:
    """A rule by which trials are stopped."""

    make: Callable[[Course], Any] | None = None
    """A `ray.tune.schedulers.TrialScheduler`; None where nothing is stopped."""
    share: float = 1.0
    """Of the epochs, what is let pass where no grace period is given."""
    rule: Callable[[Course], str] = lambda course: ""
    """In words, for a person."""


def _asha(course: Course) -> Any:
    """Li et al. 2020, "A System for Massively Parallel Hyperparameter Tuning", https://arxiv.org/abs/1810.05934."""
    from ray.tune.schedulers import ASHAScheduler

    return ASHAScheduler(
        time_attr=EPOCH,
        metric=course.criterion.column,
        mode=course.mode,
        max_t=course.epochs,
        grace_period=course.grace_epochs,
        reduction_factor=course.factor,
        stop_last_trials=False,  # a trial that gets to its end has a result; and a decision, once taken, stands
    )


def _asha_in_words(course: Course) -> str:
    rungs, epoch = [], course.grace_epochs
    while epoch < course.epochs:
        rungs.append(epoch)
        epoch *= course.factor
    at = " and ".join(filter(None, [", ".join(map(str, rungs[:-1])), str(rungs[-1])])) if rungs else "no epoch"
    return f"after {at} of {course.epochs} epochs, unless among the best 1 in {course.factor} that came so far"


def _median(course: Course) -> Any:
    """Golovin et al. 2017, "Google Vizier", section 3.2.1, https://research.google.com/pubs/pub46180.html."""
    from ray.tune.schedulers import MedianStoppingRule

    return MedianStoppingRule(
        time_attr=EPOCH,
        metric=course.criterion.column,
        mode=course.mode,
        grace_period=course.grace_epochs,
        min_time_slice=math.inf,  # else a trial that there is too little to compare with would be paused
    )


def _median_in_words(course: Course) -> str:
    worse = "below" if course.criterion.larger_is_better else "above"
    return f"from epoch {course.grace_epochs} on, once their best is {worse} the median of what others had on average"


SCHEDULERS: dict[str, Scheduler] = {
    NONE: Scheduler(),
    "asha": Scheduler(make=_asha, share=1 / 9, rule=_asha_in_words),
    "median": Scheduler(make=_median, share=1 / 4, rule=_median_in_words),
}
"""By the name that a space gives."""


@dataclass(frozen=True, kw_only=True)
class EarlyStop:
    """What a space says of early stopping: `scheduler: asha`, or `scheduler: {kind: asha, grace_epochs: 4}`."""

    kind: str = NONE
    grace_epochs: int | None = None
    """None for the scheduler's own share of the epochs."""
    factor: int = 3

    @property
    def stops(self) -> bool:
        """Whether any trial may be stopped early."""
        return SCHEDULERS[self.kind].make is not None

    def course(self, epochs: int, criterion: Criterion = CRITERIA[DEFAULT]) -> Course:
        """For trials of at most so many epochs, compared by `criterion`."""
        grace = self.grace_epochs or max(1, round(SCHEDULERS[self.kind].share * epochs))
        return Course(epochs=epochs, grace_epochs=min(grace, epochs), factor=self.factor, criterion=criterion)

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


NEVER = EarlyStop()


def parse_early_stop(value: Any) -> tuple[EarlyStop, list[str]]:
    """What `scheduler` of a space says, and what is wrong with it, one sentence a problem."""
    given = value if isinstance(value, Mapping) else {"kind": NONE if value is None else value}
    problems = [
        "scheduler: " + unknown_name("key", key, ("kind", "grace_epochs", "factor"))
        for key in given
        if key not in ("kind", "grace_epochs", "factor")
    ]
    kind = given.get("kind", NONE)
    if not isinstance(kind, str) or kind not in SCHEDULERS:
        problems.append(unknown_name("scheduler", kind, SCHEDULERS))
    for name, least in (("grace_epochs", 1), ("factor", 2)):
        number = given.get(name)
        if name in given and (not isinstance(number, int) or isinstance(number, bool) or not least <= number <= 10_000):
            problems.append(f"scheduler: {name} is {number!r}, but must be a whole number from {least} to 10000.")
    return (NEVER if problems else EarlyStop(**given)), problems
