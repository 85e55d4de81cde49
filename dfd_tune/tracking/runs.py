"""The runs of one experiment, kept equal to the records of a search: one run a trial, one named `summary`.

Everything here can be repeated: what MLflow has already is not written again, and each metric has one value a step.
After a failure it looks again before it writes, as a call may have been carried out although its answer was lost.
Not for: which records there are (record.py), nor for threads and failures (tracker.py).
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dfd_tune.criteria import DEFAULT
from dfd_tune.digest import DIGITS
from dfd_tune.record import SearchRecord, TrialRecord, arm_of
from dfd_tune.tracking.dataset import dataset_input
from dfd_tune.tracking.experiments import SEARCH_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Run

KEY_TAG = "dfd.trial_key"
KIND_TAG = "dfd.kind"
STAGE_TAG, ARM_TAG = "dfd.stage", "dfd.arm"
"""What a trial is for; of one that is trained anew, which of the confirmation's arms it belongs to."""
ERROR_TAG = "dfd.error"
STATE_TAG = "dfd.state"
FRONT_TAG = "dfd.front"
"""Of a run whose search ended without a word, or that was stopped early: what MLflow has no status for."""
EPOCH = "epoch"
"""A metric written with each epoch's others, in one transaction: it tells how far MLflow has come."""

_METRICS_PER_CALL = 800  # MLflow takes 1000 entries a call, all kinds together
_ENTRIES_PER_CALL = 100  # params, and tags
_RUNS_PER_PAGE = 500
_TERMINAL = ("FINISHED", "STOPPED", "FAILED", "KILLED")
_STATUS = {"INTERRUPTED": "KILLED", "STOPPED": "KILLED"}
"""Of trials, in MLflow's words where these are others."""
_FILES_TAG, _REPORT_TAG = "dfd.files", "dfd.report"
"""Digests of the files that the summary's run holds."""
_LARGEST = sys.float_info.max


@dataclass(slots=True)
class _Known:
    """What MLflow holds of a run; there is one of each trial, so it is kept small."""

    id: str
    status: str
    params: frozenset[str] = frozenset()
    tags: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    """The latest values."""
    has_dataset: bool = False


class ExperimentRuns:
    """The runs of one search in its experiment, loaded once; from then on this object takes itself to be the only
    writer.

    Args:
        client: a connected client.
        experiment_id: an experiment that is not deleted.
        search: name of the search, as others may share the experiment.
        runs: the runs that matter; None for all of them.
    """

    def __init__(self, client: MlflowClient, experiment_id: str, search: str, runs: Iterable[Run] | None = None):
        self._client = client
        self._search = search
        self.experiment_id = experiment_id
        self._trials: dict[str, _Known] = {}
        self._summary: _Known | None = None
        self._doubtful: set[str] = set()
        """Keys of trials, or `summary`, whose last write failed, so that what is known of them may be wrong."""
        self._same_params: dict[frozenset[str], frozenset[str]] = {}
        for run in all_runs(client, experiment_id, search) if runs is None else runs:
            known = self._known(run)
            if KEY_TAG in known.tags and known.tags.get(KIND_TAG) == "trial":
                self._trials.setdefault(known.tags[KEY_TAG], known)
            elif known.tags.get(KIND_TAG) == "summary":
                self._summary = self._summary or known

    def ids(self) -> dict[str, str]:
        """Trial key -> run id."""
        return {key: known.id for key, known in self._trials.items()}

    def write_trial(self, search: SearchRecord, trial: TrialRecord, now_ms: int) -> None:
        """Bring a trial's run up to its record. A trial that is PENDING has no run yet; of one that is INTERRUPTED or
        STOPPED the run says KILLED, and a tag the rest.

        Args:
            search: the search that the trial belongs to.
            trial: the whole of what is known of it.
            now_ms: when the record was made, in milliseconds since 1970.
        """
        if trial.status == "PENDING":
            return
        if trial.key in self._doubtful:
            self._look_again(trial.key)
        self._doubtful.add(trial.key)
        tags = _trial_tags(search, trial)
        known = self._trials.get(trial.key)
        if known is None:
            known = self._create(_run_name(trial), tags, _start(trial, now_ms))
            self._trials[trial.key] = known
        ended_ms = now_ms if trial.ended is None else int(1000 * trial.ended)
        self._write_dataset(known, search)
        if trial.status == "FAILED":
            tags[ERROR_TAG] = _cause(trial)
            if known.status != trial.status or known.tags.get(ERROR_TAG) != tags[ERROR_TAG]:
                self._client.log_text(known.id, trial.error or trial.cause or "", "error.txt")
        params = _missing_params(search, trial, known)
        self._send(known, self._new_metrics(search, trial, known, min(now_ms, ended_ms)), params, tags)
        self._remove_tags(known, {ERROR_TAG, STATE_TAG} - tags.keys())
        self._write_status(known, _STATUS.get(trial.status, trial.status), ended_ms)
        self._doubtful.discard(trial.key)

    def write_summary(
        self,
        search: SearchRecord,
        files: Sequence[Path],
        metrics: Mapping[str, float],
        tags: Mapping[str, str],
        now_ms: int,
        *,
        started_ms: int | None = None,
    ) -> str:
        """Bring the summary's run up to date and upload its files; returns its run id.

        Args:
            search: the search.
            files: uploaded under their names.
            metrics: of the search as a whole.
            tags: of the run, beside those that say whose it is.
            now_ms: when the summary was made, in milliseconds since 1970.
            started_ms: when the search began, if that is known.
        """
        tags = {**_search_tags(search), KIND_TAG: "summary", **tags}
        if "summary" in self._doubtful:
            self._look_again("summary")
        self._doubtful.add("summary")
        known = self._summary
        if known is None:
            known = self._summary = self._create("summary", tags, now_ms if started_ms is None else started_ms)
        self._write_dataset(known, search)
        changed = _changed(metrics, known)
        groups = [_metrics(changed, self._free_step(known, changed, 0), now_ms)] if changed else []
        wrote = self._send(known, groups, {}, tags)
        self._remove_tags(known, {STATE_TAG})
        wrote |= self._upload(known, _FILES_TAG, {file.name: file for file in files})
        if wrote or known.status != "FINISHED":
            self._client.set_terminated(known.id, "FINISHED", now_ms)
            known.status = "FINISHED"
        self._doubtful.discard("summary")
        return known.id

    def write_report(self, search: SearchRecord, folder: Path, files: Sequence[Path], now_ms: int) -> None:
        """Upload a report's files, which lie in `folder`, to the summary, under `report`."""
        self.summary_id(search, now_ms)
        assert self._summary is not None
        self._upload(
            self._summary, _REPORT_TAG, {f"report/{file.relative_to(folder).as_posix()}": file for file in files}
        )

    def write_front(self, keys: Collection[str]) -> None:
        """Mark the runs of these trials, and no others, as lying on the front of a search with two objectives."""
        for key, known in self._trials.items():
            if key in keys and FRONT_TAG not in known.tags:
                self._client.set_tag(known.id, FRONT_TAG, "true")
                known.tags[FRONT_TAG] = "true"
            elif key not in keys:
                self._remove_tags(known, [FRONT_TAG])

    def summary_id(self, search: SearchRecord, now_ms: int) -> str:
        """The run id of the summary, which is made if there is none."""
        return self._summary.id if self._summary else self.write_summary(search, [], {}, {}, now_ms)

    def _create(self, name: str, tags: Mapping[str, str], started_ms: int) -> _Known:
        # The tags come with the run itself, so that a crash leaves no run that could not be found again.
        run = self._client.create_run(self.experiment_id, started_ms, dict(tags), name)
        return self._known(run)

    def _look_again(self, which: str) -> None:
        """Learn anew what MLflow holds of a trial's run, or of the summary's; one that was deleted is gone."""
        condition = f"tags.`{KIND_TAG}` = 'summary'"
        if which != "summary":
            condition = f"tags.`{KIND_TAG}` = 'trial' AND tags.`{KEY_TAG}` = '{which}'"
        known = next(
            (self._known(run) for run in all_runs(self._client, self.experiment_id, self._search, condition)), None
        )
        if which == "summary":
            self._summary = known
        elif known is None:
            self._trials.pop(which, None)
        else:
            self._trials[which] = known

    def _known(self, run: Run) -> _Known:
        # Thousands of trials have the same params: their names are kept once.
        params = frozenset(run.data.params)
        return _Known(
            id=run.info.run_id,
            status=run.info.status,
            params=self._same_params.setdefault(params, params),
            tags={sys.intern(name): value for name, value in run.data.tags.items() if name.startswith(_OUR_TAGS)},
            metrics={sys.intern(name): value for name, value in run.data.metrics.items()},
            has_dataset=bool(run.inputs and run.inputs.dataset_inputs),
        )

    def _write_dataset(self, known: _Known, search: SearchRecord) -> None:
        if not known.has_dataset:
            self._client.log_inputs(known.id, [dataset_input(search.dataset)])
            known.has_dataset = True

    def _upload(self, known: _Known, tag: str, files: Mapping[str, Path]) -> bool:
        """Upload files under their paths, unless a tag says that these very files were; whether it did."""
        digest = _digest_of(files)
        if not files or known.tags.get(tag) == digest:
            return False
        for name, file in files.items():
            self._client.log_artifact(known.id, str(file), name.rpartition("/")[0] or None)
        self._send(known, [], {}, {tag: digest})
        return True

    def _new_metrics(self, search: SearchRecord, trial: TrialRecord, known: _Known, now_ms: int) -> list[list[Metric]]:
        """The metrics that MLflow does not have: a list for each epoch, then one for the whole trial."""
        written, groups = known.metrics.get(EPOCH, 0), []
        for entry in reversed(trial.history):
            if entry[EPOCH] <= written:
                break  # also those that an earlier attempt reported, of which this one began again
            groups.append(_metrics(entry, int(entry[EPOCH]), now_ms, search.criterion.column))
        groups.reverse()
        if trial.status in (*_TERMINAL, "INTERRUPTED"):
            last = trial.history[-1] if trial.history else {EPOCH: 0.0}
            whole = {name: value for name, value in trial.metrics.items() if name not in last}
            if whole := _changed(whole, known):
                groups.append(_metrics(whole, self._free_step(known, whole, int(last[EPOCH])), now_ms))
        return groups

    def _free_step(self, known: _Known, names: Iterable[str], step: int) -> int:
        """The first step from `step` on at which none of these metrics has a value, nor later."""
        taken = [
            metric.step
            for name in names
            if name in known.metrics
            for metric in self._client.get_metric_history(known.id, name)
        ]
        return max([step, *(other + 1 for other in taken)])

    def _send(
        self, known: _Known, groups: list[list[Metric]], params: Mapping[str, str], tags: Mapping[str, str]
    ) -> bool:
        """Write what is not known yet, in few calls within the limits; a group of metrics stays together.

        Returns:
            Whether there was anything.
        """
        from mlflow.entities import Param, RunTag

        new_params = [Param(name, value) for name, value in params.items()]
        new_tags = [RunTag(name, value) for name, value in tags.items() if known.tags.get(name) != value]
        groups = list(groups)
        anything = bool(groups or new_params or new_tags)
        while groups or new_params or new_tags:
            metrics: list[Metric] = []
            while groups and len(metrics) + len(groups[0]) <= _METRICS_PER_CALL:
                metrics += groups.pop(0)
            now_params, new_params = new_params[:_ENTRIES_PER_CALL], new_params[_ENTRIES_PER_CALL:]
            now_tags, new_tags = new_tags[:_ENTRIES_PER_CALL], new_tags[_ENTRIES_PER_CALL:]
            self._client.log_batch(known.id, metrics, now_params, now_tags)
            known.metrics.update((metric.key, metric.value) for metric in metrics)
            if now_params:
                names = known.params | {param.key for param in now_params}
                known.params = self._same_params.setdefault(names, names)
            known.tags.update((tag.key, tag.value) for tag in now_tags)
        return anything

    def _remove_tags(self, known: _Known, names: Iterable[str]) -> None:
        for name in sorted(names):
            if name in known.tags:
                self._client.delete_tag(known.id, name)
                del known.tags[name]

    def _write_status(self, known: _Known, status: str, now_ms: int) -> None:
        if known.status == status:
            return
        if status in _TERMINAL:
            self._client.set_terminated(known.id, status, now_ms)
        else:
            self._client.update_run(known.id, status=status)
        known.status = status


def all_runs(client: MlflowClient, experiment_id: str, search: str, condition: str = "") -> Iterator[Run]:
    """Every run of a search that is not deleted and meets a condition, oldest first."""
    condition = " AND ".join([f"tags.`{SEARCH_TAG}` = '{search}'", *([condition] if condition else [])])
    token = None
    while True:
        page = client.search_runs(
            [experiment_id],
            condition,
            max_results=_RUNS_PER_PAGE,
            order_by=["attributes.start_time ASC"],
            page_token=token,
        )
        yield from page
        token = page.token
        if not token:
            return


def _dataset_settings(search: SearchRecord) -> dict[str, Any]:
    """The settings of DatasetConfig; what the search's record calls `data` may be a private path, and stays there."""
    return {name: value for name, value in search.dataset_settings.items() if name != "data"}


def _run_name(trial: TrialRecord) -> str:
    config = trial.config
    stage = "" if trial.stage == "search" else f"{trial.stage}: "
    return f"{stage}{config['backbone']} λ={config['lambda_']:g} seed={config['seed']} {trial.key[:6]}"


_OUR_TAGS = ("dfd.", "mlflow.source.name")


def _search_tags(search: SearchRecord) -> dict[str, str]:
    return {
        SEARCH_TAG: search.search,
        **({} if search.choose_by == DEFAULT else {"dfd.choose_by": search.choose_by}),
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
        "dfd.attempts": str(trial.attempts),
    }
    tags[STAGE_TAG] = trial.stage
    known_later: dict[str, str | None] = {
        "dfd.teacher_key": trial.teacher,
        "dfd.host": trial.host,
        "dfd.device": trial.device,
        "dfd.gpus": None if trial.gpus is None else f"{trial.gpus:g}",
        ARM_TAG: None if trial.stage == "search" else arm_of(search, trial.key),
    }
    if trial.status == "INTERRUPTED" and trial.ended is not None:
        known_later[STATE_TAG] = interrupted_state(trial.ended)
    if trial.status == "STOPPED":
        known_later[STATE_TAG] = f"STOPPED early after {len(trial.history)} of {trial.config['epochs']} epochs"
    return tags | {name: value for name, value in known_later.items() if value is not None}


def interrupted_state(since: float) -> str:
    """The value of the tag of a run that nobody runs since then, in seconds since 1970."""
    return f"INTERRUPTED since {datetime.fromtimestamp(since, UTC).isoformat('T', 'seconds')}"


def _missing_params(search: SearchRecord, trial: TrialRecord, known: _Known) -> dict[str, str]:
    settings = _dataset_settings(search) | trial.config
    return {name: str(value) for name, value in settings.items() if name not in known.params}


def _start(trial: TrialRecord, now_ms: int) -> int:
    """When a run began; for a trial that this search did not begin, so that its duration is right."""
    if trial.started is not None:
        return int(1000 * trial.started)
    ended_ms = now_ms if trial.ended is None else int(1000 * trial.ended)
    return ended_ms - int(1000 * trial.metrics.get("seconds", 0.0))


def _digest_of(files: Mapping[str, Path]) -> str:
    """Of paths and contents, in 16 hexadecimal digits."""
    running = hashlib.sha256()
    for name, file in sorted(files.items()):
        running.update(f"{name}\0{hashlib.sha256(file.read_bytes()).hexdigest()}\n".encode())
    return running.hexdigest()[:DIGITS]


def _changed(metrics: Mapping[str, float], known: _Known) -> dict[str, float]:
    """The metrics that MLflow has another value of, or none."""
    return {
        name: value
        for name, value in metrics.items()
        if name not in known.metrics or _kept(known.metrics[name]) != _kept(value)
    }


def _kept(value: float) -> float | None:
    """A number as a database keeps it and Python can compare it."""
    return None if value != value else max(-_LARGEST, min(_LARGEST, value))


def _metrics(values: Mapping[str, float], step: int, now_ms: int, first: str = "") -> list[Metric]:
    from mlflow.entities import Metric

    # The comparison page shows the metric that was written first, so the one that matters goes first.
    order = sorted(values, key=lambda name: (name != first, name == EPOCH))
    return [Metric(name, float(values[name]), now_ms, step) for name in order]


def _cause(trial: TrialRecord) -> str:
    """Why a trial FAILED, in one line: as its record says, else the last line of its traceback."""
    lines = [line.strip() for line in (trial.cause or trial.error or "").splitlines() if line.strip()]
    return lines[-1][:500] if lines else "unknown"
