"""Tracker: what the rest of the program tells MLflow, and how failures of MLflow are kept out of a search.

Trials are written by a thread, so that the search does not wait; while MLflow is away they wait there, and what it
never took is reported at the end. Summary and model are written while the caller waits, and raise. Not for: reading
results (record.py).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from dfd_tune.errors import UserError
from dfd_tune.record import SearchRecord, TrialRecord
from dfd_tune.store import Store
from dfd_tune.tracking import models
from dfd_tune.tracking.address import Address
from dfd_tune.tracking.connection import (
    Connection,
    artifact_root,
    connect,
    is_away,
    reason,
    refusals_as_user_errors,
    resolve_address,
)
from dfd_tune.tracking.experiments import experiment_name, experiment_of, home_of, model_name
from dfd_tune.tracking.outbox import PAUSES, Outbox, Pauses
from dfd_tune.tracking.runs import ExperimentRuns
from dfd_tune.tracking.summary import Summary
from dfd_tune.tracking.view import columns_of, view_tags

if TYPE_CHECKING:
    import torch
    from mlflow import MlflowClient

Result = TypeVar("Result")

PATIENCE_SECONDS = 120.0
"""How long a search that is over waits for an MLflow that takes nothing, before it gives up and says so."""
_ATTEMPTS = 4
"""How often summary, report and model are begun, where MLflow answers in between."""


@dataclass(frozen=True)
class _TrialUpdate:
    search: SearchRecord
    trial: TrialRecord
    now_ms: int

    def says_the_same(self, other: _TrialUpdate) -> bool:
        """Whether the trial's record is the same."""
        return self.trial == other.trial


def open_tracker(
    store: Store,
    uri: str | None,
    *,
    clock: Callable[[], float] = time.time,
    patience: float = PATIENCE_SECONDS,
    pauses: Pauses = PAUSES,
    meanwhile: bool = False,
) -> Tracker:
    """Connect to MLflow at `uri`, or at the store's own database, which is made if it is not there.

    Args:
        store: where the database and, unless MLflow is a server, the artifacts go.
        uri: http(s) address of a server, or address of a database; None for the store's own.
        clock: seconds since 1970.
        patience: seconds; how long summary and model are tried while MLflow is away.
        pauses: between attempts while MLflow is away.
        meanwhile: whether the store's own database is made ready while the caller goes on, once it calls `prepare` or
            has something to write: seconds, for importing mlflow and making tables. Any other address is connected to
            at once.

    Raises:
        UserError: no such address, no answer within seconds, or a database that can't be opened.
    """
    address = resolve_address(store, uri)
    connection = Connection(lambda: connect(store, address))
    if not meanwhile or address.recorded is not None:
        connection.client()
    return Tracker(connection, address, store, clock, patience, pauses)


def upload_report(
    store: Store, uri: str | None, search: SearchRecord, folder: Path, files: Sequence[Path]
) -> str | None:
    """Upload a report to the summary run of a search; returns what MLflow had against it, None if nothing.

    The report lies in the store in any case, so a refusal is no error, and a server that is away is not waited for.

    Args:
        store: the search's.
        uri: None for where the search was recorded.
        search: whose report it is.
        folder: where the files lie.
        files: all of them.
    """
    try:
        tracker = open_tracker(store, search.mlflow if uri is None else uri, patience=0)
        try:
            tracker.log_report(search, folder, files)
        finally:
            tracker.close()
    except UserError as error:
        return str(error)
    return None


class Tracker:
    """One writer to one MLflow. Make it with `open_tracker`; `close` it at the end.

    Args:
        connection: makes the client.
        address: where MLflow is.
        store: whose searches these are.
        clock: seconds since 1970.
        patience: see `open_tracker`; likewise `pauses`.
        pauses: between attempts.
    """

    def __init__(
        self,
        connection: Connection,
        address: Address,
        store: Store,
        clock: Callable[[], float] = time.time,
        patience: float = PATIENCE_SECONDS,
        pauses: Pauses = PAUSES,
    ):
        self._connection = connection
        self._address = address
        self._store = store
        self._clock = clock
        self._patience = patience
        self._pauses = pauses
        self._experiments: dict[str, ExperimentRuns] = {}
        self._suspect: set[str] = set()
        """Searches of which MLflow refused something: somebody may have deleted the experiment."""
        self._gave_up = False
        self._one_writer = threading.RLock()
        self._outbox: Outbox[_TrialUpdate] = Outbox(self._write_trial, self._describe, is_away, pauses=pauses)

    @property
    def _client(self) -> MlflowClient:
        return self._connection.client()

    def prepare(self) -> None:
        """Begin to connect, if that has not begun; returns at once."""
        self._connection.begin()

    def wait(self) -> None:
        """Wait until it is connected.

        Raises:
            UserError: the store's own database can't be opened.
        """
        self._connection.client()

    def raise_if_refused(self) -> None:
        """Say so if the connection was tried and could not be made.

        Raises:
            UserError: the store's own database can't be opened.
        """
        self._connection.raise_if_refused()

    @property
    def address(self) -> str:
        """Where MLflow is, without user and password."""
        return str(self._address)

    @property
    def has_password(self) -> bool:
        """Whether the address was given with a password, which no record keeps."""
        return bool(self._address.secrets)

    @property
    def recorded_address(self) -> str | None:
        """For `SearchRecord.mlflow`: as `address`, but None for the store's own database."""
        return self._address.recorded

    @property
    def home(self) -> str:
        """For `SearchRecord.home`: the store's identity."""
        return self._store.identity()

    @property
    def waiting(self) -> int:
        """How many trials' runs are not up to their records yet."""
        return len(self._outbox)

    def log_trial(self, search: SearchRecord, trial: TrialRecord) -> None:
        """Have the trial's run brought up to its record; returns at once, raises nothing. May be repeated."""
        self._outbox.put(f"{search.search}/{trial.key}", self._update(search, trial))

    def sync(
        self, search: SearchRecord, trials: Sequence[TrialRecord], *, patience: float = PATIENCE_SECONDS
    ) -> list[str]:
        """Bring the runs of all trials up to their records and wait; what went wrong, in sentences.

        Args:
            search: the search that they belong to.
            trials: their records.
            patience: seconds without anything written, after which it gives up.
        """
        for trial in trials:
            name, update = f"{search.search}/{trial.key}", self._update(search, trial)
            # What waits since the trial ended knows when that was.
            self._outbox.put(name, update, says_the_same=update.says_the_same)
        problems = self._outbox.flush(patience, while_it_goes_on=True)
        self._gave_up = bool(problems)
        return problems

    def close(self, *, patience: float = PATIENCE_SECONDS) -> list[str]:
        """Write what still waits, for up to `patience` seconds, and end the thread; what went wrong, in sentences."""
        return self._outbox.close(patience)

    def log_summary(
        self,
        search: SearchRecord,
        trials: Sequence[TrialRecord],
        files: Sequence[Path],
        metrics: Mapping[str, float],
        tags: Mapping[str, str] | None = None,
    ) -> str:
        """Bring the run named `summary` up to date, with files as artifacts; returns its run id.

        The number of trials of each status is added to the metrics.

        Raises:
            UserError: MLflow did not take it.
        """
        counts = Counter(trial.status for trial in trials)
        counted = {f"trials_{status.lower()}": float(number) for status, number in sorted(counts.items())}
        began = min((int(1000 * trial.started) for trial in trials if trial.started is not None), default=None)

        def write() -> str:
            return self._runs_of(search).write_summary(
                search, files, {**counted, **metrics}, tags or {}, self._now_ms(), started_ms=began
            )

        return self._insist(write, "did not take the search's summary")

    def log_report(self, search: SearchRecord, folder: Path, files: Sequence[Path]) -> None:
        """Upload a report's files, which lie in `folder`.

        Raises:
            UserError: MLflow did not take them.
        """

        def write() -> None:
            self._runs_of(search).write_report(search, folder, files, self._now_ms())

        self._insist(write, "did not take the report")

    def conclude(self, search: SearchRecord, trials: Sequence[TrialRecord], summary: Summary) -> str | None:
        """Bring the summary, the report and the registered best student up to date.

        Returns:
            The address models:/NAME@best; None if there is no best student.

        Raises:
            UserError: MLflow did not take it, or the student's file can't be used.
        """
        self.log_summary(search, trials, summary.tables, summary.metrics)
        self.log_report(search, summary.report_folder, summary.report)
        self._insist(lambda: self._runs_of(search).write_front(summary.front), "did not take the front")
        best = next((trial for trial in trials if search.best is not None and trial.key == search.best.key), None)
        file = summary.student
        if best is None or file is None:
            return None
        return self._register(search, best, lambda: models.student_in(file), search.search, summary.description)

    def register_best(
        self,
        search: SearchRecord,
        trial: TrialRecord,
        model: torch.nn.Module,
        example: np.ndarray,
        name: str,
        *,
        description: str = "",
    ) -> str:
        """Log the best student to the summary and register it as `name`, alias `best`: see `models.register`.

        Args:
            search: the search that it comes from.
            trial: the best trial.
            model: on the CPU, in eval mode; maps uint8 (N, H, W, C) to float32 (N, K) for any N, H and W.
            example: uint8 (2, H, W, C).
            name: of the registered model; where another store has taken it, a longer one is used.
            description: shown beside the version.

        Returns:
            The address models:/NAME@best.

        Raises:
            UserError: MLflow does not take the name, or did not take the model.
        """
        return self._register(search, trial, lambda: (model, example), name, description)

    def _register(
        self, search: SearchRecord, trial: TrialRecord, student: models.Student, name: str, description: str
    ) -> str:
        if not name or any(character in name for character in "/:'\""):
            raise UserError(f"The model name '{name}' must be some text without '/', ':' and quotes.")

        best = search.best
        cost = {} if best is None or best.key != trial.key or best.cost is None else best.cost.numbers()

        def write() -> str:
            runs = self._runs_of(search)
            return models.register(
                self._client,
                experiment_id=runs.experiment_id,
                run_id=runs.summary_id(search, self._now_ms()),
                trial=trial,
                student=student,
                name=model_name(self._client, name, home_of(search, self._store)),
                cost=cost,
                description=description,
                by_id=self._address.is_server,
            )

        return self._insist(write, f"did not take the model '{name}'")

    def runs(self, search: SearchRecord) -> dict[str, str]:
        """Trial key -> run id, as far as written; makes the experiment if there is none.

        Raises:
            UserError: MLflow does not answer.
        """
        with self._one_writer, refusals_as_user_errors(self._address, "can't be read"):
            return self._runs_of(search).ids()

    def experiment_id(self, search: SearchRecord) -> str:
        """The id of a search's experiment, which is made if there is none.

        Raises:
            UserError: MLflow does not answer.
        """
        with self._one_writer, refusals_as_user_errors(self._address, "can't be read"):
            return self._runs_of(search).experiment_id

    def _update(self, search: SearchRecord, trial: TrialRecord) -> _TrialUpdate:
        return _TrialUpdate(search, trial, self._now_ms())

    def _write_trial(self, update: _TrialUpdate) -> None:
        with self._one_writer:
            try:
                self._runs_of(update.search).write_trial(update.search, update.trial, update.now_ms)
            except Exception as error:
                if not is_away(error):
                    self._suspect.add(update.search.search)
                raise

    def _insist(self, write: Callable[[], Result], what_happened: str) -> Result:
        """Write while the caller waits; again if MLflow was away and is back within the patience.

        A search whose trials were given up just now has waited already.
        """
        with refusals_as_user_errors(self._address, what_happened):
            end = time.monotonic() + (0 if self._gave_up else self._patience)
            for attempt in range(1, _ATTEMPTS + 1):
                try:
                    with self._one_writer:
                        return write()
                except Exception as error:
                    if not is_away(error) or attempt == _ATTEMPTS or not self._back_before(end):
                        raise
            raise AssertionError("the last attempt returns or raises")

    def _back_before(self, end: float) -> bool:
        """Wait until MLflow answers; False if it does not by then."""
        failures = 1
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, self._pauses.after(failures)))
            failures += 1
            with contextlib.suppress(Exception):
                self._client.search_experiments(max_results=1)
                return True
        return False

    def _runs_of(self, search: SearchRecord) -> ExperimentRuns:
        name = search.search
        runs = self._experiments.get(name)
        if runs is not None and name in self._suspect:
            if self._client.get_experiment(runs.experiment_id).lifecycle_stage != "active":
                runs = None
            self._suspect.discard(name)
        if runs is None:
            artifacts = None if self._address.is_server else artifact_root(self._store)
            home, tags = home_of(search, self._store), view_tags(columns_of(search), search.criterion)
            experiment_id = experiment_of(self._client, experiment_name(search), home, self._store, artifacts, tags)
            runs = self._experiments[name] = ExperimentRuns(self._client, experiment_id, name)
        return runs

    def _now_ms(self) -> int:
        return int(1000 * self._clock())

    def _describe(self, error: Exception) -> str:
        return (
            f"MLflow at '{self._address}' did not take a trial ({reason(error, self._address)}); its results are in "
            "the store, and the next launch of the search writes them again."
        )
