"""The runs of one experiment, kept equal to the records of a search: one run a trial, one named `summary`.

Everything here can be repeated: what MLflow has already is not written again. Not for: which records there
are (record.py), nor for threads and failures (tracker.py).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfd_tune.record import SearchRecord, TrialRecord

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import DatasetInput, Metric, Run

KEY_TAG = "dfd.trial_key"
KIND_TAG = "dfd.kind"
ERROR_TAG = "dfd.error"
EPOCH = "epoch"
"""A metric written with each epoch's others, in one transaction: it tells how far MLflow has come."""

_METRICS_PER_CALL = 800  # MLflow takes 1000 entries a call, all kinds together
_ENTRIES_PER_CALL = 100  # params, and tags
_TERMINAL = ("FINISHED", "FAILED", "KILLED")


@dataclass
class _Known:
    """What MLflow holds of a run."""

    id: str
    status: str
    params: set[str] = field(default_factory=set)
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    has_dataset: bool = False


class ExperimentRuns:
    """The runs of one experiment, loaded once; from then on this object takes itself to be the only writer.

    Args:
        client: a connected client.
        experiment_id: an experiment that is not deleted.
    """

    def __init__(self, client: MlflowClient, experiment_id: str):
        self._client = client
        self.experiment_id = experiment_id
        self._trials: dict[str, _Known] = {}
        self._summary: _Known | None = None
        for run in _all_runs(client, experiment_id):
            known = _known(run)
            if KEY_TAG in known.tags and known.tags.get(KIND_TAG) == "trial":
                self._trials.setdefault(known.tags[KEY_TAG], known)
            elif known.tags.get(KIND_TAG) == "summary":
                self._summary = self._summary or known

    def ids(self) -> dict[str, str]:
        """Trial key -> run id."""
        return {key: known.id for key, known in self._trials.items()}

    def write_trial(self, search: SearchRecord, trial: TrialRecord, started_ms: int | None, now_ms: int) -> None:
        """Bring a trial's run up to its record. A trial that is PENDING has no run yet.

        Args:
            search: the search that the trial belongs to.
            trial: the whole of what is known of it.
            started_ms: when it started, in milliseconds since 1970; None if that was not seen.
            now_ms: when the record was made.
        """
        if trial.status == "PENDING":
            return
        tags = _trial_tags(search, trial)
        known = self._trials.get(trial.key)
        if known is None:
            known = self._create(_run_name(trial), tags, _start(trial, started_ms, now_ms))
            self._trials[trial.key] = known
        self._write_dataset(known, search)
        params = {name: str(value) for name, value in (_dataset_settings(search) | trial.config).items()}
        self._send(known, _new_epochs(trial, known, now_ms), params, tags)
        self._write_status(known, trial, now_ms)

    def write_summary(
        self,
        search: SearchRecord,
        files: list[Path],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        now_ms: int,
    ) -> str:
        """Bring the summary's run up to date and upload its files; returns its run id."""
        tags = {**_search_tags(search), KIND_TAG: "summary", **tags}
        known = self._summary
        if known is None:
            known = self._summary = self._create("summary", tags, now_ms)
        self._write_dataset(known, search)
        changed = {name: value for name, value in metrics.items() if known.metrics.get(name) != value}
        self._send(known, [_metrics(changed, 0, now_ms)] if changed else [], {}, tags)
        known.metrics.update(changed)
        for file in files:
            self._client.log_artifact(known.id, str(file))
        self._client.set_terminated(known.id, "FINISHED", now_ms)
        known.status = "FINISHED"
        return known.id

    def write_report(self, search: SearchRecord, folder: Path, files: Sequence[Path], now_ms: int) -> None:
        """Upload a report's files, which lie in `folder`, to the summary, under `report`."""
        run_id = self.summary_id(search, now_ms)
        for file in files:
            inside = Path("report") / file.relative_to(folder).parent
            self._client.log_artifact(run_id, str(file), inside.as_posix())

    def summary_id(self, search: SearchRecord, now_ms: int) -> str:
        """The run id of the summary, which is made if there is none."""
        return self._summary.id if self._summary else self.write_summary(search, [], {}, {}, now_ms)

    def _create(self, name: str, tags: Mapping[str, str], started_ms: int) -> _Known:
        # The tags come with the run itself, so that a crash leaves no run that could not be found again.
        run = self._client.create_run(self.experiment_id, started_ms, dict(tags), name)
        return _known(run)

    def _write_dataset(self, known: _Known, search: SearchRecord) -> None:
        if not known.has_dataset:
            self._client.log_inputs(known.id, [_dataset_input(search.dataset)])
            known.has_dataset = True

    def _send(
        self, known: _Known, groups: list[list[Metric]], params: Mapping[str, str], tags: Mapping[str, str]
    ) -> None:
        """Write what is not known yet, in few calls within the limits; a group of metrics stays together."""
        from mlflow.entities import Param, RunTag

        new_params = [Param(name, value) for name, value in params.items() if name not in known.params]
        new_tags = [RunTag(name, value) for name, value in tags.items() if known.tags.get(name) != value]
        groups = list(groups)
        while groups or new_params or new_tags:
            metrics: list[Metric] = []
            while groups and len(metrics) + len(groups[0]) <= _METRICS_PER_CALL:
                metrics += groups.pop(0)
            now_params, new_params = new_params[:_ENTRIES_PER_CALL], new_params[_ENTRIES_PER_CALL:]
            now_tags, new_tags = new_tags[:_ENTRIES_PER_CALL], new_tags[_ENTRIES_PER_CALL:]
            self._client.log_batch(known.id, metrics, now_params, now_tags)
            known.metrics.update((metric.key, metric.value) for metric in metrics)
            known.params.update(param.key for param in now_params)
            known.tags.update((tag.key, tag.value) for tag in now_tags)

    def _write_status(self, known: _Known, trial: TrialRecord, now_ms: int) -> None:
        error = _last_line(trial.error) if trial.status == "FAILED" else None
        if known.status == trial.status and known.tags.get(ERROR_TAG) == error:
            return
        if error is not None:
            self._client.log_text(known.id, trial.error or "", "error.txt")
            self._client.set_tag(known.id, ERROR_TAG, error)
            known.tags[ERROR_TAG] = error
        elif ERROR_TAG in known.tags:
            self._client.delete_tag(known.id, ERROR_TAG)
            del known.tags[ERROR_TAG]
        if trial.status in _TERMINAL:
            self._client.set_terminated(known.id, trial.status, now_ms)
        else:
            self._client.update_run(known.id, status=trial.status)
        known.status = trial.status


def _all_runs(client: MlflowClient, experiment_id: str) -> list[Run]:
    """Every run that is not deleted, oldest first."""
    runs: list[Run] = []
    token = None
    while True:
        page = client.search_runs(
            [experiment_id], max_results=500, order_by=["attributes.start_time ASC"], page_token=token
        )
        runs += page
        token = page.token
        if not token:
            return runs


def _known(run: Run) -> _Known:
    inputs = run.inputs.dataset_inputs if run.inputs else []
    return _Known(
        id=run.info.run_id,
        status=run.info.status,
        params=set(run.data.params),
        tags=dict(run.data.tags),
        metrics=dict(run.data.metrics),
        has_dataset=bool(inputs),
    )


def _dataset_settings(search: SearchRecord) -> dict[str, Any]:
    """The settings of DatasetConfig; what the search's record calls `data` may be a private path, and stays there."""
    return {name: value for name, value in search.dataset_settings.items() if name != "data"}


def _run_name(trial: TrialRecord) -> str:
    config = trial.config
    return f"{config['backbone']} λ={config['lambda_']:g} seed={config['seed']} {trial.key[:6]}"


def _search_tags(search: SearchRecord) -> dict[str, str]:
    return {
        "dfd.search": search.search,
        "dfd.space": search.space,
        "dfd.dataset": str(search.dataset["dataset"]),
        "mlflow.source.name": "dfd-tune",
    }


def _trial_tags(search: SearchRecord, trial: TrialRecord) -> dict[str, str]:
    tags = {
        **_search_tags(search),
        KIND_TAG: "trial",
        KEY_TAG: trial.key,
        "dfd.backbone": str(trial.config["backbone"]),
    }
    return tags if trial.teacher is None else {**tags, "dfd.teacher_key": trial.teacher}


def _start(trial: TrialRecord, started_ms: int | None, now_ms: int) -> int:
    """When a run began; for a trial that nobody saw start, so that its duration is right."""
    return now_ms - int(1000 * trial.metrics.get("seconds", 0.0)) if started_ms is None else started_ms


def _new_epochs(trial: TrialRecord, known: _Known, now_ms: int) -> list[list[Metric]]:
    """The metrics that MLflow does not have: a list for each epoch, then one for the whole trial."""
    written = known.metrics.get(EPOCH, 0)
    groups = [_metrics(entry, int(entry[EPOCH]), now_ms) for entry in trial.history if entry[EPOCH] > written]
    last = int(trial.history[-1][EPOCH]) if trial.history else 0
    per_epoch = set(trial.history[-1]) if trial.history else {EPOCH}
    whole = {
        name: value
        for name, value in trial.metrics.items()
        if name not in per_epoch and name != EPOCH and known.metrics.get(name) != value
    }
    return [*groups, _metrics(whole, last, now_ms)] if whole and trial.status in _TERMINAL else groups


def _metrics(values: Mapping[str, float], step: int, now_ms: int) -> list[Metric]:
    from mlflow.entities import Metric

    # The comparison page shows the metric that was written first, so the one that matters goes first.
    order = sorted(values, key=lambda name: (name != "val_accuracy", name == EPOCH))
    return [Metric(name, float(values[name]), now_ms, step) for name in order]


def _last_line(error: str | None) -> str:
    lines = [line.strip() for line in (error or "").splitlines() if line.strip()]
    return lines[-1][:500] if lines else "unknown"


def _dataset_input(dataset: Mapping[str, Any]) -> DatasetInput:
    """The dataset as a run's input: name, digest and sizes. No image is loaded."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    # The dataset's record is complete, so it serves as profile; the schema is that of its arrays.
    size, channels = dataset.get("image_size") or -1, dataset.get("channels") or -1
    schema = {
        "mlflow_tensorspec": {
            "features": json.dumps([_tensor("uint8", [-1, size, size, channels])]),
            "targets": json.dumps([_tensor("int64", [-1])]),
        }
    }
    source = {"tags": {"dataset": str(dataset["dataset"]), "data": str(dataset.get("data") or "downloaded")}}
    entity = Dataset(
        name=str(dataset["dataset"]),
        digest=str(dataset["digest"])[:36],
        source_type="code",
        source=json.dumps(source),
        schema=json.dumps(schema),
        profile=json.dumps(dict(dataset), default=str),
    )
    return DatasetInput(entity, [InputTag("mlflow.data.context", "training")])


def _tensor(dtype: str, shape: list[int]) -> dict[str, Any]:
    return {"type": "tensor", "tensor-spec": {"dtype": dtype, "shape": shape}}
