"""Tracker: what the rest of the program tells MLflow, and how failures of MLflow are kept out of a search.

Trials are written by a thread, so that the search does not wait; a failure is remembered and reported at the
end. Summary and model are written while the caller waits, and raise. Not for: reading results (record.py).
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import numpy as np

from dfd_tune.errors import UserError
from dfd_tune.record import SearchRecord, TrialRecord
from dfd_tune.store import Store
from dfd_tune.tracking import models
from dfd_tune.tracking.connection import (
    artifact_root,
    connect,
    is_server,
    reason,
    refusals_as_user_errors,
    resolve_address,
    shown,
)
from dfd_tune.tracking.outbox import Outbox
from dfd_tune.tracking.runs import ExperimentRuns

if TYPE_CHECKING:
    import torch
    from mlflow import MlflowClient

PATIENCE_SECONDS = 120.0
"""How long `sync` and `close` wait for MLflow before they give up and say so."""


@dataclass(frozen=True)
class _TrialUpdate:
    search: SearchRecord
    trial: TrialRecord
    started_ms: int | None
    now_ms: int


def open_tracker(store: Store, uri: str | None, *, clock: Callable[[], float] = time.time) -> Tracker:
    """Connect to MLflow at `uri`, or at the store's own database, which is made if it is not there.

    Args:
        store: where the database and, unless MLflow is a server, the artifacts go.
        uri: http(s) address of a server, or address of a database; None for the store's own.
        clock: seconds since 1970.

    Raises:
        UserError: no such address, no answer within seconds, or a database that can't be opened.
    """
    address = resolve_address(store, uri)
    artifacts = None if is_server(address) else artifact_root(store)
    return Tracker(connect(store, address), address, artifacts, clock)


def upload_report(
    store: Store, uri: str | None, search: SearchRecord, folder: Path, files: Sequence[Path]
) -> str | None:
    """Upload a report to the summary run of a search; returns what MLflow had against it, None if nothing.

    The report lies in the store in any case, so a refusal is no error.
    """
    try:
        tracker = open_tracker(store, uri)
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
        client: a connected client.
        address: where MLflow is.
        artifacts: file URI of the folder for artifacts; None leaves it to the server.
        clock: seconds since 1970.
    """

    def __init__(self, client: MlflowClient, address: str, artifacts: str | None, clock: Callable[[], float]):
        self.address = address
        self._client = client
        self._artifacts = artifacts
        self._clock = clock
        self._started: dict[str, int] = {}
        self._experiments: dict[str, ExperimentRuns] = {}
        self._one_writer = threading.RLock()
        self._outbox: Outbox[_TrialUpdate] = Outbox(self._write_trial, self._describe)

    def log_trial(self, search: SearchRecord, trial: TrialRecord) -> None:
        """Have the trial's run brought up to its record; returns at once, raises nothing. May be repeated."""
        now_ms = self._now_ms()
        name = f"{search.search}/{trial.key}"
        if trial.status == "RUNNING":
            self._started.setdefault(name, now_ms)
        self._outbox.put(name, _TrialUpdate(search, trial, self._started.get(name), now_ms))

    def sync(
        self, search: SearchRecord, trials: Sequence[TrialRecord], *, patience: float = PATIENCE_SECONDS
    ) -> list[str]:
        """Bring the runs of all trials up to their records and wait; what went wrong, in sentences."""
        for trial in trials:
            self.log_trial(search, trial)
        return self._outbox.flush(patience)

    def close(self, *, patience: float = PATIENCE_SECONDS) -> list[str]:
        """Write what still waits and end the thread; returns what went wrong, in sentences."""
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
        with self._one_writer, refusals_as_user_errors(self.address, "did not take the search's summary"):
            runs = self._runs_of(search.search)
            return runs.write_summary(search, list(files), {**counted, **metrics}, tags or {}, self._now_ms())

    def log_report(self, search: SearchRecord, folder: Path, files: Sequence[Path]) -> None:
        """Upload a report's files, which lie in `folder`.

        Raises:
            UserError: MLflow did not take them.
        """
        with self._one_writer, refusals_as_user_errors(self.address, "did not take the report"):
            self._runs_of(search.search).write_report(search, folder, files, self._now_ms())

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
            name: of the registered model.
            description: shown beside the version.

        Returns:
            The address models:/NAME@best.

        Raises:
            UserError: MLflow does not take the name, or did not take the model.
        """
        if not name or any(character in name for character in "/:'\""):
            raise UserError(f"The model name '{name}' must be some text without '/', ':' and quotes.")
        with self._one_writer, refusals_as_user_errors(self.address, f"did not take the model '{name}'"):
            runs = self._runs_of(search.search)
            return models.register(
                self._client,
                experiment_id=runs.experiment_id,
                run_id=runs.summary_id(search, self._now_ms()),
                trial=trial,
                model=model,
                example=example,
                name=name,
                description=description,
                by_id=is_server(self.address),
            )

    def runs(self, search_name: str) -> dict[str, str]:
        """Trial key -> run id, as far as written; makes the experiment if there is none.

        Raises:
            UserError: MLflow does not answer.
        """
        with self._one_writer, refusals_as_user_errors(self.address, "can't be read"):
            return self._runs_of(search_name).ids()

    def experiment_id(self, search_name: str) -> str:
        """The id of a search's experiment, which is made if there is none.

        Raises:
            UserError: MLflow does not answer.
        """
        with self._one_writer, refusals_as_user_errors(self.address, "can't be read"):
            return self._runs_of(search_name).experiment_id

    def _write_trial(self, update: _TrialUpdate) -> None:
        with self._one_writer:
            try:
                runs = self._runs_of(update.search.search)
                runs.write_trial(update.search, update.trial, update.started_ms, update.now_ms)
            except BaseException:
                # Somebody may have deleted a run: the next attempt looks again at what is there.
                self._experiments.pop(update.search.search, None)
                raise

    def _runs_of(self, search_name: str) -> ExperimentRuns:
        if search_name not in self._experiments:
            experiment_id = self._experiment(search_name)
            self._experiments[search_name] = ExperimentRuns(self._client, experiment_id)
        return self._experiments[search_name]

    def _experiment(self, name: str) -> str:
        """Find or make the experiment. One that was deleted comes back, as the search did."""
        from mlflow.exceptions import MlflowException

        found = self._client.get_experiment_by_name(name)
        if found is None:
            place = None if self._artifacts is None else f"{self._artifacts}/{quote(name)}"
            try:
                return str(self._client.create_experiment(name, artifact_location=place))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self._client.get_experiment_by_name(name)
                assert found is not None, name
        if found.lifecycle_stage == "deleted":
            self._client.restore_experiment(found.experiment_id)
        return str(found.experiment_id)

    def _now_ms(self) -> int:
        return int(1000 * self._clock())

    def _describe(self, error: Exception) -> str:
        return (
            f"MLflow at '{shown(self.address)}' did not take a trial ({reason(error)}); its results are in "
            "the store, and the next launch of the search writes them again."
        )
