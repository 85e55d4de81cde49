"""What the writer costs a trial does not grow with the number of trials; MLflow itself is a stand-in that counts."""

from __future__ import annotations

import itertools
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

from dfd_tune.store import open_store
from dfd_tune.tracking.address import read_address
from dfd_tune.tracking.connection import Connection
from dfd_tune.tracking.tracker import Tracker
from tests.tracking.records import search_record, trial_record

SEARCH = search_record("large")


class Page(list):
    """What a search of runs gives."""

    token: str | None = None


class Counting:
    """As much of MlflowClient as writing trials needs, in memory."""

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.experiments: list = []
        self.runs: dict[str, SimpleNamespace] = {}

    def search_experiments(self, **_: object) -> list:
        self.calls["search_experiments"] += 1
        return self.experiments

    def create_experiment(self, name: str, place: str | None, tags: dict) -> str:
        self.experiments.append(SimpleNamespace(experiment_id="1", name=name, tags=tags, lifecycle_stage="active"))
        return "1"

    def get_experiment(self, experiment_id: str) -> SimpleNamespace:
        return self.experiments[0]

    def search_runs(
        self, ids: list, condition: str, *, max_results: int, order_by: list, page_token: str | None
    ) -> Page:
        self.calls["search_runs"] += 1
        begin = int(page_token or 0)
        page = Page(itertools.islice(self.runs.values(), begin, begin + max_results))
        page.token = str(begin + max_results) if begin + max_results < len(self.runs) else None
        return page

    def create_run(self, experiment_id: str, start: int, tags: dict, name: str) -> SimpleNamespace:
        self.calls["create_run"] += 1
        run = SimpleNamespace(
            info=SimpleNamespace(run_id=str(len(self.runs)), status="RUNNING"),
            data=SimpleNamespace(params={}, tags=tags, metrics={}),
            inputs=SimpleNamespace(dataset_inputs=[]),
        )
        self.runs[run.info.run_id] = run
        return run

    def log_inputs(self, run_id: str, inputs: list) -> None:
        self.calls["log_inputs"] += 1
        self.runs[run_id].inputs.dataset_inputs = inputs

    def log_batch(self, run_id: str, metrics: list, params: list, tags: list) -> None:
        self.calls["log_batch"] += 1
        data = self.runs[run_id].data
        data.metrics |= {metric.key: metric.value for metric in metrics}
        data.params |= {param.key: param.value for param in params}
        data.tags |= {tag.key: tag.value for tag in tags}

    def set_terminated(self, run_id: str, status: str, end: int) -> None:
        self.calls["set_terminated"] += 1
        self.runs[run_id].info.status = status


@pytest.fixture
def client() -> Counting:
    return Counting()


def tracker_for(client: Counting, folder: Path) -> Tracker:
    store = open_store(folder)
    return Tracker(Connection(lambda: client), read_address(store, None), store)


def test_a_trial_costs_the_same_few_calls_however_many_there_are(client: Counting, tmp_path: Path) -> None:
    tracker, count, epochs = tracker_for(client, tmp_path), 5000, 3
    trials = [trial_record(f"{number:016x}", epochs=epochs) for number in range(count)]
    assert tracker.sync(SEARCH, trials) == []
    assert client.calls == {
        "search_experiments": 1,
        "search_runs": 1,
        "create_run": count,
        "log_inputs": count,
        "log_batch": count,
        "set_terminated": count,
    }
    assert tracker.close() == []

    client.calls.clear()
    relaunched = tracker_for(client, tmp_path)
    assert relaunched.sync(SEARCH, trials) == []
    assert client.calls == {"search_experiments": 1, "search_runs": count // 500}
    client.calls.clear()
    assert relaunched.sync(SEARCH, [trial_record("f" * 16, epochs=1, status="RUNNING")]) == []
    assert client.calls == {"create_run": 1, "log_inputs": 1, "log_batch": 1}
    assert relaunched.close() == []


def test_an_update_of_a_trial_is_one_call(client: Counting, tmp_path: Path) -> None:
    tracker = tracker_for(client, tmp_path)
    assert tracker.sync(SEARCH, [trial_record("a" * 16, epochs=1, status="RUNNING")]) == []
    for epochs in range(2, 10):
        client.calls.clear()
        assert tracker.sync(SEARCH, [trial_record("a" * 16, epochs=epochs, status="RUNNING")]) == []
        assert client.calls == {"log_batch": 1}
    assert tracker.close() == []


def test_a_failure_does_not_load_all_runs_again(client: Counting, tmp_path: Path) -> None:
    tracker = tracker_for(client, tmp_path)
    trials = [trial_record(f"{number:016x}", epochs=1) for number in range(2000)]
    assert tracker.sync(SEARCH, trials) == []
    client.calls.clear()
    log_batch, failed = client.log_batch, []

    def fail_once(*arguments: object) -> None:
        if not failed:
            failed.append(True)
            raise ValueError("refused")
        log_batch(*arguments)

    client.log_batch = fail_once
    client.runs = {"0": client.runs["0"]}  # what a search for this trial's run would find
    assert tracker.sync(SEARCH, [trial_record(f"{0:016x}", epochs=2)]) == []
    assert client.calls == {"search_runs": 1, "log_batch": 1}
    assert tracker.close() == []


def test_reporting_an_epoch_waits_for_no_write_however_many_trials_there_are(client: Counting, tmp_path: Path) -> None:
    tracker = tracker_for(client, tmp_path)
    log_batch, gate = client.log_batch, threading.Event()

    def stuck(*arguments: object) -> None:
        gate.wait(60)
        log_batch(*arguments)

    client.log_batch = stuck
    for number in range(10_000):
        tracker.log_trial(SEARCH, trial_record(f"{number:016x}", epochs=1, status="RUNNING"))
    # All were taken while MLflow had not taken one.
    assert client.calls["log_batch"] == 0
    assert tracker.waiting >= 9_999
    gate.set()
    assert tracker.close(patience=0) != []
