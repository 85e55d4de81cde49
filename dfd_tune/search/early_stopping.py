"""Which running trials end early: what they report is put to the scheduler, and its decision to the trial.

A trial that is to end finds a file, looked for right after each report; it then keeps a checkpoint and ends (see
`context.StoppableCheckpoints`), so that only trials that are stopped write one for it, and a worker group ends as
gracefully as a single process. Schedulers hold what they know in memory, so the histories in the records are put to
them first. Not for: the rules (schedulers.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from dfd_tune.config import TrialConfig
from dfd_tune.criteria import CRITERIA, DEFAULT, Criterion
from dfd_tune.record import Stage, TrialRecord
from dfd_tune.schedulers import EPOCH, SCHEDULERS, EarlyStop


@dataclass(frozen=True)
class _Trial:
    """All that a scheduler asks of a trial of Tune's."""

    trial_id: str


class EarlyStopping:
    """The scheduler of a search, asked about every epoch.

    Args:
        rule: what the space says.
        epochs: of the longest trial.
        records: the search's trials so far, in the order they were begun.
        end: tells a trial, by its key, to end.
        criterion: by what trials are compared.
    """

    def __init__(
        self,
        rule: EarlyStop,
        epochs: int,
        records: Iterable[TrialRecord],
        end: Callable[[str], None],
        criterion: Criterion = CRITERIA[DEFAULT],
    ):
        make = SCHEDULERS[rule.kind].make
        self._scheduler = None if make is None else make(rule.course(epochs, criterion))
        self._column = criterion.column
        self._end = end
        self._heard: dict[str, int] = {}
        """Trial key -> the latest epoch that the scheduler knows."""
        for record in records:
            self.behind(record.key, TrialConfig(**record.config), record.stage, record.history)

    def behind(self, key: str, config: TrialConfig, stage: Stage, history: Sequence[Mapping[str, float]]) -> None:
        """Epochs that a trial has behind it, about which nothing can be decided any more."""
        for metrics in history:
            self._put(key, config, stage, metrics)

    def epoch(self, key: str, config: TrialConfig, stage: Stage, metrics: Mapping[str, float]) -> None:
        """A running trial reports an epoch; if the scheduler wants that, it is told to end. Its last epoch ends it
        anyway."""
        if self._put(key, config, stage, metrics) and metrics[EPOCH] < config.epochs:
            self._end(key)

    def _put(self, key: str, config: TrialConfig, stage: Stage, metrics: Mapping[str, float]) -> bool:
        """Whether the scheduler, which hears of each epoch once, would stop the trial."""
        # Plain training is what all else is measured by; what comes after the search has its epochs by plan.
        if self._scheduler is None or stage != "search" or not config.distills:
            return False
        if self._column not in metrics or metrics[EPOCH] <= self._heard.get(key, 0):
            return False
        trial = _Trial(key)
        if key not in self._heard:
            self._scheduler.on_trial_add(None, trial)
        self._heard[key] = int(metrics[EPOCH])
        told = {EPOCH: metrics[EPOCH], self._column: metrics[self._column]}
        return bool(self._scheduler.on_trial_result(None, trial, told) == "STOP")
