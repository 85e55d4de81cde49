"""The search's books: the one place where trial records are made, kept in the store, and sent to MLflow.

Not for: which trial comes next (agenda.py), running trials (driver.py) or showing them (progress.py).
"""

from __future__ import annotations

import dataclasses
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Protocol

from dfd_tune.config import TrialConfig
from dfd_tune.distill.student import TrialResult, teacher_key
from dfd_tune.record import (
    SearchRecord,
    Stage,
    TestRecord,
    TrialRecord,
    TrialStatus,
    in_planned_order,
    save_search,
    save_test,
    save_trial,
)
from dfd_tune.search.faults import Failure
from dfd_tune.store import Store
from dfd_tune.tracking import Tracker

SECONDS_AN_HOUR = 3600


class Watcher(Protocol):
    """Is told of every change, to show it."""

    def changed(self, ledger: Ledger, trial: TrialRecord) -> None:
        """A trial's record has changed."""

    def planned(self, total: int) -> None:
        """So many trials there are to be in all, as is known by now."""


@dataclasses.dataclass
class _Attempt:
    """When a trial's attempt began, and how many devices it holds."""

    began: float
    devices: int


class Ledger:
    """Records of one search's trials; every change is written at once, at a cost that does not grow with their number.

    Args:
        store: where records are kept.
        search: the search's own record.
        trials: records of an earlier launch of the same search, as `reopened` leaves them.
        tracker: MLflow.
        dataset_digest: part of every trial key.
        watch: told of every change.
        clock: seconds.
        now: seconds since 1970.
        costs: what a trial's student costs, as metrics.
    """

    def __init__(
        self,
        store: Store,
        search: SearchRecord,
        trials: Sequence[TrialRecord],
        tracker: Tracker,
        dataset_digest: str,
        watch: Watcher,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = time.time,
        costs: Callable[[TrialConfig], Mapping[str, float]] = lambda config: {},
    ):
        self.store = store
        self.search = search
        self.trials = {trial.key: trial for trial in trials}
        self.tracker = tracker
        self.dataset_digest = dataset_digest
        self.watch = watch
        self.counts: Counter[TrialStatus] = Counter(trial.status for trial in self.trials.values())
        self.running: dict[str, TrialRecord] = {}
        """By key, the trials that run."""
        self.best: TrialRecord | None = None
        """The FINISHED trial that is best so far, by what the search chooses by."""
        for trial in self.trials.values():
            self._note_best(trial)
        self._costs = costs
        self._number_of: Callable[[str], int | None] = lambda key: None
        self._clock = clock
        self._now = now
        self._attempts: dict[str, _Attempt] = {}

    def number_by(self, number_of: Callable[[str], int | None]) -> None:
        """From now on, a trial that is new has the number that this gives for its key."""
        self._number_of = number_of

    def in_order(self) -> list[TrialRecord]:
        """All trials, the planned ones in their order: for whoever chooses among them."""
        return in_planned_order(self.search, self.trials.values())

    def with_status(self, status: TrialStatus) -> list[TrialRecord]:
        """The trials of that status, in the order they were first seen; goes through all of them."""
        return [trial for trial in self.trials.values() if trial.status == status]

    def started(
        self,
        config: TrialConfig,
        key: str,
        *,
        host: str,
        device: str,
        gpus: float | None = None,
        stage: Stage = "search",
    ) -> None:
        """An attempt at a trial has begun; `stage` says what for, of one that is begun for the first time, `gpus` the
        share of a GPU of each worker where it is not the search's."""
        before = self.trials.get(key)
        self._attempts[key] = _Attempt(self._clock(), config.workers)
        self._put(
            TrialRecord(
                key=key,
                status="RUNNING",
                config=dict(vars(config)),
                stage=stage if before is None else before.stage,
                teacher=teacher_key(config, self.dataset_digest),
                history=[] if before is None else before.history,
                metrics=_lasting(before),
                host=host,
                device=device,
                gpus=gpus,
                attempts=(0 if before is None else before.attempts) + 1,
                started=self._now() if before is None or before.started is None else before.started,
            )
        )

    def resumed(self, key: str, history: list[dict[str, float]]) -> None:
        """A running trial goes on from a checkpoint, with these epochs behind it."""
        self._put(dataclasses.replace(self.trials[key], history=history), keep=False)

    def epoch_done(self, key: str, metrics: Mapping[str, Any]) -> None:
        """A running trial reports an epoch. One that an earlier attempt got further than begins again there."""
        trial = self.trials[key]
        epoch = {name: float(metrics[name]) for name in _EPOCH_METRICS if name in metrics}
        before = [entry for entry in trial.history if entry["epoch"] < epoch["epoch"]]
        self._put(dataclasses.replace(trial, history=[*before, epoch]), keep=False)

    def finished(
        self,
        config: TrialConfig,
        result: TrialResult,
        *,
        peak_memory_bytes: float | None = None,
        stage: Stage = "search",
    ) -> TrialRecord:
        """A trial has a result; returns its record.

        It is recorded as this search's trial: the search that trained it may have called what cannot matter (the
        reduction of a distillation loss that weighs nothing) otherwise.
        """
        before = self.trials.get(result.key)
        record = TrialRecord(
            key=result.key,
            status="FINISHED",
            config=dict(vars(config)),
            stage=stage if before is None else before.stage,
            teacher=result.teacher,
            metrics=result.metrics | dict(self._costs(config)) | self._cost(result.key, peak_memory_bytes),
            history=result.history,
            host=None if before is None else before.host,
            device=None if before is None else before.device,
            gpus=None if before is None else before.gpus,
            attempts=0 if before is None else before.attempts,
            started=None if before is None else before.started,
            ended=self._now(),
        )
        return self._put(record)

    def stopped_early(self, config: TrialConfig, key: str, *, stage: Stage = "search") -> TrialRecord:
        """A trial was ended by its scheduler; what it has learned lies in its checkpoint."""
        metrics = _lasting(self.trials.get(key)) | self._cost(key)
        record = self._known(config, key, stage)
        return self._put(dataclasses.replace(record, status="STOPPED", metrics=metrics, ended=self._now()))

    def cost_out(self, wanted: Collection[str]) -> None:
        """Have these costs of every finished trial, also where an earlier launch was not after them."""
        for trial in self.with_status("FINISHED"):
            if any(name not in trial.metrics for name in wanted):
                costs = self._costs(TrialConfig(**trial.config))
                self._put(dataclasses.replace(trial, metrics=trial.metrics | dict(costs)))

    def failed(self, config: TrialConfig, key: str, failure: Failure, *, stage: Stage = "search") -> None:
        """A trial ended without a result and is not tried again in this launch."""
        self._put(
            dataclasses.replace(
                self._known(config, key, stage),
                status="FAILED",
                error=failure.error or failure.cause,
                cause=failure.cause,
                fault=failure.fault,
                metrics=_lasting(self.trials.get(key)) | self._cost(key),
                ended=self._now(),
            )
        )

    def interrupted(self, config: TrialConfig, key: str, *, stage: Stage = "search") -> None:
        """An attempt was lost, and another will follow."""
        record = self._known(config, key, stage)
        self._put(
            dataclasses.replace(record, status="PENDING", metrics=_lasting(self.trials.get(key)) | self._cost(key))
        )

    def kill_running(self) -> None:
        """The search was stopped: what still runs, or waits for another attempt, is KILLED."""
        for trial in (
            *self.with_status("RUNNING"),
            *(trial for trial in self.with_status("PENDING") if trial.attempts),
        ):
            metrics = _lasting(trial) | self._cost(trial.key)
            self._put(dataclasses.replace(trial, status="KILLED", metrics=metrics, ended=self._now()))

    def tested(self, key: str, record: TestRecord) -> None:
        """What the test images say of a student: kept at once, so that nobody asks them again."""
        save_test(self.store, self.search.search, record)
        tested, tests = self.search.tested | {key: record.accuracy}, self.search.tests | {key: record}
        self.search = dataclasses.replace(self.search, tested=tested, tests=tests)

    def tested_network(self, key: str, record: TestRecord) -> None:
        """Likewise of a teacher or base network, by the test images of its side."""
        save_test(self.store, self.search.search, record)
        teachers = [
            dataclasses.replace(known, test_accuracy=record.accuracy) if known.key == key else known
            for known in self.search.teachers
        ]
        self.update_search(teachers=teachers, tests=self.search.tests | {key: record})

    def update_search(self, **changes: Any) -> None:
        """Change the search's own record."""
        self.search = dataclasses.replace(self.search, **changes)
        save_search(self.store, self.search)

    def _known(self, config: TrialConfig, key: str, stage: Stage) -> TrialRecord:
        """The trial's record; a new one for a trial whose process ended before it could say anything."""
        return self.trials.get(key) or TrialRecord(
            key=key,
            status="PENDING",
            config=dict(vars(config)),
            stage=stage,
            teacher=teacher_key(config, self.dataset_digest),
            attempts=1,
        )

    def _cost(self, key: str, peak_memory_bytes: float | None = None) -> dict[str, float]:
        """Device-hours of all attempts, and the peak memory of the last."""
        before = _lasting(self.trials.get(key))
        attempt = self._attempts.pop(key, None)
        if attempt is not None:
            hours = attempt.devices * (self._clock() - attempt.began) / SECONDS_AN_HOUR
            before["device_hours"] = before.get("device_hours", 0.0) + hours
        if peak_memory_bytes is not None:
            before["peak_memory_bytes"] = peak_memory_bytes
        return before

    def _put(self, trial: TrialRecord, *, keep: bool = True) -> TrialRecord:
        before = self.trials.get(trial.key)
        known = None if before is None else before.number
        trial = dataclasses.replace(trial, number=self._number_of(trial.key) if known is None else known)
        if before is not None:
            self.counts[before.status] -= 1
        self.counts[trial.status] += 1
        self.trials[trial.key] = trial
        if trial.status == "RUNNING":
            self.running[trial.key] = trial
        else:
            self.running.pop(trial.key, None)
        self._note_best(trial)
        if keep:
            save_trial(self.store, self.search.search, trial)
        self.tracker.log_trial(self.search, trial)
        self.watch.changed(self, trial)
        return trial

    def _note_best(self, trial: TrialRecord) -> None:
        if trial.status != "FINISHED":
            return
        by = self.search.criterion
        if self.best is None or by.cost(by.of(trial.metrics)) < by.cost(by.of(self.best.metrics)):
            self.best = trial


def reopened(trial: TrialRecord, *, has_result: bool, retry_failed: bool, stops_early: bool = False) -> TrialRecord:
    """A record of an earlier launch as the next one begins with it.

    A FINISHED one whose result is gone is not believed; a FAILED one stays so if the fault was its own, as it would
    come again, unless it is to be retried; a STOPPED one, while there is a scheduler; all else is PENDING.
    """
    if trial.status == "STOPPED" and stops_early:
        return trial
    if trial.status == "FINISHED" and has_result:
        return trial
    if trial.status == "FAILED" and trial.fault == "trial" and not retry_failed:
        return trial
    return dataclasses.replace(trial, status="PENDING", error=None, cause=None, fault=None, ended=None)


def _lasting(trial: TrialRecord | None) -> dict[str, float]:
    """The metrics that all attempts of a trial share."""
    known = {} if trial is None else trial.metrics
    return {name: known[name] for name in ("device_hours", "peak_memory_bytes") if name in known}


_EPOCH_METRICS = (
    "epoch",
    "loss",
    "cross_entropy",
    "distillation",
    "train_accuracy",
    "val_accuracy",
    "val_balanced_accuracy",
    "val_macro_f1",
    "val_loss",
    "learning_rate",
    "images_per_second",
)
