"""What MLflow says of a search whose process died without a word: no run of it may go on saying RUNNING.

Not for: a search that runs, nor for whether one does (liveness.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from dfd_tune.record import SearchRecord, TrialRecord
from dfd_tune.store import Store
from dfd_tune.tracking.connection import connect, refusals_as_user_errors, resolve_address
from dfd_tune.tracking.experiments import experiment_name, find_experiment, home_of
from dfd_tune.tracking.runs import KEY_TAG, KIND_TAG, STATE_TAG, ExperimentRuns, all_runs, interrupted_state

if TYPE_CHECKING:
    from mlflow import MlflowClient


def mark_interrupted(
    store: Store, search: SearchRecord, trials: Sequence[TrialRecord], since: float, *, uri: str | None = None
) -> None:
    """End those runs of a search that say RUNNING although nobody runs them: as their records say, or as KILLED.

    The latter say so in the tag `dfd.state` until their trial runs again or ends. Not for a search that runs.

    Args:
        store: the search's.
        search: one whose launch ended without a word, by SIGKILL, say.
        trials: records of its trials.
        since: when it was last alive, in seconds since 1970.
        uri: where MLflow is, if not where the search was recorded.

    Raises:
        UserError: MLflow does not answer or refuses.
    """
    address = resolve_address(store, search.mlflow if uri is None else uri)
    if address.own and not store.path("mlflow.db").exists():
        return
    client = connect(store, address)
    with refusals_as_user_errors(address, f"did not take that '{search.search}' was interrupted"):
        experiment = find_experiment(client, experiment_name(search), home_of(search, store))
        if experiment is not None and experiment.lifecycle_stage == "active":
            _mark_runs(client, experiment.experiment_id, search, trials, since)


def _mark_runs(
    client: MlflowClient, experiment_id: str, search: SearchRecord, trials: Sequence[TrialRecord], since: float
) -> None:
    running = list(all_runs(client, experiment_id, search.search, "attributes.status = 'RUNNING'"))
    ended = {trial.key: trial for trial in trials if trial.status in ("FINISHED", "STOPPED", "FAILED", "KILLED")}
    runs, since_ms = ExperimentRuns(client, experiment_id, search.search, running), int(1000 * since)
    for run in running:
        trial = ended.get(run.data.tags.get(KEY_TAG, ""))
        if trial is not None:
            runs.write_trial(search, trial, since_ms)
        elif KIND_TAG in run.data.tags:
            client.set_tag(run.info.run_id, STATE_TAG, interrupted_state(since))
            client.set_terminated(run.info.run_id, "KILLED", since_ms)
