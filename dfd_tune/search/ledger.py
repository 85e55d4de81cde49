"""The search's books: the one place where trial records are made, kept in the store, and sent to MLflow.

Not for: running trials (driver.py) or showing them (progress.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from dfd_tune.config import TrialConfig
from dfd_tune.distill.student import TrialResult, teacher_key
from dfd_tune.record import SearchRecord, TrialRecord, TrialStatus, save_search, save_trial
from dfd_tune.store import Store
from dfd_tune.tracking import Tracker

Watcher = Callable[["Ledger"], None]


class Ledger:
    """Records of one search's trials; every change is written at once.

    Args:
        store: where records are kept.
        search: the search's own record.
        trials: records of an earlier launch of the same search; what did not finish then is PENDING now.
        tracker: MLflow.
        dataset_digest: part of every trial key.
        watch: called after every change, to show it.
    """

    def __init__(
        self,
        store: Store,
        search: SearchRecord,
        trials: list[TrialRecord],
        tracker: Tracker,
        dataset_digest: str,
        watch: Watcher,
    ):
        self.store = store
        self.search = search
        self.trials = {
            trial.key: trial if trial.status == "FINISHED" else dataclasses.replace(trial, status="PENDING", history=[])
            for trial in trials
        }
        self.tracker = tracker
        self.dataset_digest = dataset_digest
        self.watch = watch

    def with_status(self, status: TrialStatus) -> list[TrialRecord]:
        """The trials of that status, in the order they were first seen."""
        return [trial for trial in self.trials.values() if trial.status == status]

    def started(self, config: TrialConfig) -> None:
        """A trial begins, or begins anew."""
        teacher = teacher_key(config, self.dataset_digest)
        self._put(
            TrialRecord(
                key=config.key(self.dataset_digest),
                status="RUNNING",
                config=dataclasses.asdict(config),
                teacher=teacher,
            )
        )

    def epoch_done(self, key: str, metrics: Mapping[str, Any]) -> None:
        """A running trial reports an epoch. An epoch that is known already changes nothing."""
        trial = self.trials[key]
        if trial.history and metrics["epoch"] <= trial.history[-1]["epoch"]:
            return
        epoch = {name: float(metrics[name]) for name in _EPOCH_METRICS if name in metrics}
        self._put(dataclasses.replace(trial, history=[*trial.history, epoch]), keep=False)

    def finished(self, config: TrialConfig, result: TrialResult) -> None:
        """The result of a trial lies in the store.

        It is recorded as this search's trial: the search that trained it may have called what cannot matter (the
        reduction of a distillation loss that weighs nothing) otherwise.
        """
        self._put(
            TrialRecord(
                key=result.key,
                status="FINISHED",
                config=dataclasses.asdict(config),
                teacher=result.teacher,
                metrics=result.metrics,
                history=result.history,
            )
        )

    def failed(self, key: str, error: str) -> None:
        """A trial crashed; `error` is its traceback."""
        self._put(dataclasses.replace(self.trials[key], status="FAILED", error=error))

    def kill_running(self) -> None:
        """The search was stopped: what still runs is KILLED."""
        for trial in self.with_status("RUNNING"):
            self._put(dataclasses.replace(trial, status="KILLED"))

    def update_search(self, **changes: Any) -> None:
        """Change the search's own record."""
        self.search = dataclasses.replace(self.search, **changes)
        save_search(self.store, self.search)

    def _put(self, trial: TrialRecord, *, keep: bool = True) -> None:
        self.trials[trial.key] = trial
        if keep:
            save_trial(self.store, self.search.search, trial)
        self.tracker.log_trial(self.search, trial)
        self.watch(self)


_EPOCH_METRICS = (
    "epoch",
    "loss",
    "cross_entropy",
    "distillation",
    "train_accuracy",
    "val_accuracy",
    "val_loss",
    "learning_rate",
    "images_per_second",
)
