"""The runs of a search: what a trial's run holds, and that nothing is written twice."""

from __future__ import annotations

import dataclasses
import json
import math
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from dfd_tune.record import TrialRecord
from dfd_tune.store import Store
from dfd_tune.tracking import Tracker, open_tracker
from dfd_tune.tracking.outbox import Pauses
from tests.tracking.records import NAMES, assert_one_value_a_step, history_of, runs_of, search_record, trial_record

# One trial's run


def test_a_finished_trial_is_one_complete_run(tracker: Tracker, store: Store) -> None:
    search, trial = search_record("complete"), trial_record("a" * 16, epochs=3)
    assert tracker.sync(search, [trial]) == []
    [(key, run_id)] = tracker.runs(search).items()
    run = tracker._client.get_run(run_id)
    assert key == trial.key
    assert run.info.run_name == "resnet18 λ=2 seed=0 aaaaaa"
    assert run.info.status == "FINISHED"
    assert run.info.end_time - run.info.start_time == 7500
    assert run.data.params == {name: str(value) for name, value in trial.config.items()}
    expected = {
        "kind": "trial",
        "stage": "search",
        "trial_key": trial.key,
        "space": "tiny",
        "dataset": "digits",
        "search": "complete",
    }
    expected |= {"backbone": "resnet18", "teacher_key": "t" * 16, "attempts": "0"}
    assert {name[4:]: value for name, value in run.data.tags.items() if name.startswith("dfd.")} == expected
    for i, name in enumerate(NAMES):
        assert history_of(tracker, run_id, name) == [(e, e + i / 10) for e in (1, 2, 3)]
    assert history_of(tracker, run_id, "seconds") == [(3, 7.5)]
    [entry] = run.inputs.dataset_inputs
    assert (entry.dataset.name, entry.dataset.digest) == ("digits", "d" * 16)
    assert json.loads(entry.dataset.profile)["train_size"] == 100
    assert [(tag.key, tag.value) for tag in entry.tags] == [("mlflow.data.context", "training")]
    assert run.info.artifact_uri.startswith(store.path("mlflow_artifacts").as_uri())


def test_logging_again_adds_nothing_and_later_epochs_are_added(tracker: Tracker, store: Store) -> None:
    search, key = search_record("again"), "b" * 16
    for epochs in (1, 1, 2):
        assert tracker.sync(search, [trial_record(key, epochs=epochs, status="RUNNING")]) == []
    another = open_tracker(store, None)  # as a later launch, which remembers nothing
    for _ in range(2):
        assert another.sync(search, [trial_record(key, epochs=4)]) == []
    assert another.close() == []
    assert another.runs(search).keys() == {key}
    run_id = another.runs(search)[key]
    assert len(another._client.search_runs([another.experiment_id(search)])) == 1
    assert history_of(another, run_id, "loss") == [(e, float(e)) for e in (1, 2, 3, 4)]
    assert history_of(another, run_id, "epoch") == [(e, float(e)) for e in (1, 2, 3, 4)]
    assert history_of(another, run_id, "seconds") == [(4, 7.5)]


def test_the_status_is_truthful_from_failure_to_success(tracker: Tracker) -> None:
    search, key = search_record("status"), "c" * 16
    client = tracker._client

    def write(record: TrialRecord) -> str:
        assert tracker.sync(search, [record]) == []
        return tracker.runs(search)[key]

    assert tracker.sync(search, [trial_record(key, epochs=0, status="PENDING")]) == []
    assert tracker.runs(search) == {}
    run_id = write(trial_record(key, epochs=1, status="RUNNING"))
    assert client.get_run(run_id).info.status == "RUNNING"
    assert client.get_run(run_id).info.end_time is None

    error = "Traceback (most recent call last):\n  File ...\nRuntimeError: out of luck\n"
    assert write(trial_record(key, epochs=1, status="FAILED", error=error)) == run_id
    failed = client.get_run(run_id)
    assert (failed.info.status, failed.data.tags["dfd.error"]) == ("FAILED", "RuntimeError: out of luck")
    assert failed.info.end_time is not None
    path = client.download_artifacts(run_id, "error.txt")
    assert Path(path).read_text() == error

    write(trial_record(key, epochs=1, status="RUNNING"))
    assert client.get_run(run_id).info.status == "RUNNING"
    assert "dfd.error" not in client.get_run(run_id).data.tags
    write(trial_record(key, epochs=1, status="KILLED"))
    assert client.get_run(run_id).info.status == "KILLED"
    assert write(trial_record(key, epochs=2)) == run_id
    assert client.get_run(run_id).info.status == "FINISHED"


def test_times_are_those_of_the_record_or_of_the_clock(store: Store) -> None:
    tracker = open_tracker(store, None, clock=lambda: 160.0)
    search, key = search_record("clock"), "d" * 16
    for status, ended in (("RUNNING", None), ("FINISHED", 150.25)):
        assert tracker.sync(search, [trial_record(key, epochs=1, status=status, started=99.5, ended=ended)]) == []
    taken_over = trial_record("e" * 16, epochs=1)  # from another search: nobody here saw it run for its 7.5 s
    assert tracker.sync(search, [taken_over]) == []
    runs = {key: tracker._client.get_run(run_id).info for key, run_id in tracker.runs(search).items()}
    assert (runs[key].start_time, runs[key].end_time) == (99_500, 150_250)
    assert (runs[taken_over.key].start_time, runs[taken_over.key].end_time) == (152_500, 160_000)
    assert tracker.close() == []


def test_long_histories_and_many_params_keep_within_the_limits(tracker: Tracker) -> None:
    config = {**trial_record("f" * 16, epochs=0).config, **{f"setting_{i}": i for i in range(150)}}
    trial = trial_record("f" * 16, epochs=130, config=config)  # 130 × 8 metrics, more than one call may hold
    assert tracker.sync(search_record("long"), [trial]) == []
    run_id = tracker.runs(search_record("long"))["f" * 16]
    assert len(tracker._client.get_run(run_id).data.params) == 154
    assert history_of(tracker, run_id, "val_loss") == [(e, e + 0.5) for e in range(1, 131)]


# Several attempts at a trial


def test_epochs_that_a_resumed_trial_reports_again_are_not_doubled(anywhere: Tracker) -> None:
    search, key = search_record(f"resumed-{anywhere._address.is_server}"), "1" * 16
    whole = trial_record(key, epochs=5)

    def report(epochs: range, status: str = "RUNNING") -> None:
        history = [whole.history[epoch - 1] for epoch in epochs]
        record = dataclasses.replace(whole, history=history, status=status)
        assert anywhere.sync(search, [record]) == []

    report(range(1, 2))
    report(range(1, 4))
    report(range(1, 3))  # from the checkpoint of epoch 2
    anywhere._experiments.clear()  # as a driver that was killed, and began anew
    report(range(1, 3))
    for last in (3, 4, 5):
        report(range(1, last + 1))
    report(range(1, 6), "FINISHED")
    [run_id] = anywhere.runs(search).values()
    assert history_of(anywhere, run_id, "loss") == [(epoch, float(epoch)) for epoch in range(1, 6)]
    assert_one_value_a_step(anywhere, run_id)


@pytest.mark.parametrize("call", ["create_run", "log_inputs", "log_batch", "set_terminated", "log_text"])
def test_a_call_whose_answer_was_lost_is_not_repeated_blindly(
    anywhere: Tracker, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException

    search = search_record(f"lost-{call}-{anywhere._address.is_server}")
    carry_out, lost = getattr(anywhere._client, call), []

    def answer_is_lost(*arguments: object, **others: object) -> object:
        value = carry_out(*arguments, **others)
        if len(lost) < 2:
            lost.append(call)
            raise MlflowException("connection reset by peer")
        return value

    monkeypatch.setattr(anywhere._client, call, answer_is_lost)
    failed = trial_record("3" * 16, epochs=2, status="FAILED", error="Traceback …", metrics={"device_hours": 0.5})
    assert anywhere.sync(search, [trial_record("2" * 16, epochs=3), failed]) == []
    assert lost == [call, call]
    ids = anywhere.runs(search)
    assert {run.info.run_id for run in runs_of(anywhere, search.search)} == set(ids.values())
    assert [anywhere._client.get_run(ids[key * 16]).info.status for key in "23"] == ["FINISHED", "FAILED"]
    for run_id in ids.values():
        assert_one_value_a_step(anywhere, run_id)
        assert len(anywhere._client.get_run(run_id).inputs.dataset_inputs) == 1


@pytest.mark.parametrize("seed", range(4))
def test_whatever_fails_and_whenever_runs_come_out_as_the_records_say(
    store: Store, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    chance, tracker = random.Random(seed), open_tracker(store, None, pauses=Pauses(0.001, 0.002))
    failures = Counter()

    def unreliable(carry_out: Callable) -> Callable:
        def call(*arguments: object, **others: object) -> object:
            fate = chance.choice(["done", "done", "done", "away", "refused", "answer lost"])
            failures[fate] += 1
            if fate == "refused":
                raise MlflowException("no", INVALID_PARAMETER_VALUE)
            value = None if fate == "away" else carry_out(*arguments, **others)
            if fate != "done":
                raise MlflowException("nobody there")
            return value

        return call

    calls = (
        "create_run log_inputs log_batch set_terminated update_run delete_tag log_text create_experiment search_runs"
    )
    with monkeypatch.context() as fate:
        for call in calls.split():
            fate.setattr(tracker._client, call, unreliable(getattr(tracker._client, call)))
        search, keys = search_record(f"fate-{seed}"), [digit * 16 for digit in "123"]
        while min(failures[fate] for fate in ("away", "refused", "answer lost")) < 8:
            key, epochs, status = chance.choice(keys), chance.randint(0, 6), chance.choice(STATUSES)
            record = trial_record(key, epochs=epochs, status=status, attempts=chance.randint(1, 3))
            if status != "RUNNING":
                record.metrics["device_hours"] = chance.random()
            tracker.log_trial(search, record)
            if chance.random() < 0.1:
                tracker._outbox.flush(0.01)
                tracker._experiments.pop(search.search, None)  # a driver that was killed, and began anew
            time.sleep(chance.random() / 100)
    last = [trial_record(key, epochs=7, metrics={"seconds": 1.0, "device_hours": 2.0}) for key in keys]
    assert tracker.sync(search, last) == []
    runs = runs_of(tracker, search.search)
    assert sorted(run.data.tags["dfd.trial_key"] for run in runs) == keys
    for run in runs:
        assert (run.info.status, run.data.metrics["device_hours"]) == ("FINISHED", 2.0)
        assert not {"dfd.error", "dfd.state"} & run.data.tags.keys()
        assert history_of(tracker, run.info.run_id, "loss") == [(epoch, float(epoch)) for epoch in range(1, 8)]
        assert_one_value_a_step(tracker, run.info.run_id)
    assert tracker.close() == []


STATUSES = ("RUNNING", "RUNNING", "FAILED", "KILLED", "PENDING")


def test_a_run_says_where_it_ran_and_what_it_cost_however_it_ended(anywhere: Tracker) -> None:
    search, key = search_record(f"cost-{anywhere._address.is_server}"), "4" * 16

    def write(status: str, attempts: int, hours: float, **changes: object) -> tuple[dict, dict]:
        record = trial_record(key, epochs=2, status=status, host=f"node-{attempts}", device="cpu", attempts=attempts)
        metrics = {**record.metrics, "device_hours": hours, "peak_memory_bytes": 1e9}
        assert anywhere.sync(search, [dataclasses.replace(record, metrics=metrics, **changes)]) == []
        anywhere._experiments.clear()
        run = anywhere._client.get_run(anywhere.runs(search)[key])
        return run.data.tags, run.data.metrics

    tags, metrics = write("RUNNING", 1, 0.0)
    assert "device_hours" not in metrics
    for attempts, status in enumerate(("FAILED", "KILLED", "FINISHED"), 1):
        tags, metrics = write(status, attempts, attempts / 4, cause="no memory" if status == "FAILED" else None)
        assert (tags["dfd.host"], tags["dfd.device"], tags["dfd.attempts"]) == (
            f"node-{attempts}",
            "cpu",
            f"{attempts}",
        )
        assert (metrics["device_hours"], metrics["peak_memory_bytes"]) == (attempts / 4, 1e9)
    assert "dfd.gpus" not in tags
    assert write("FINISHED", 3, 0.75, gpus=0.5)[0]["dfd.gpus"] == "0.5"
    [run_id] = anywhere.runs(search).values()
    assert_one_value_a_step(anywhere, run_id)
    assert [value for _, value in history_of(anywhere, run_id, "device_hours")] == [0.25, 0.5, 0.75]
    assert len(history_of(anywhere, run_id, "peak_memory_bytes")) == 1


@pytest.mark.parametrize(
    ("error", "cause", "tag", "text"),
    [
        (
            "Traceback\n  …\nValueError: x\n",
            "loss is nan at epoch 3",
            "loss is nan at epoch 3",
            "Traceback\n  …\nValueError: x\n",
        ),
        (None, "node 10.0.0.7 died", "node 10.0.0.7 died", "node 10.0.0.7 died"),
        (None, None, "unknown", ""),
    ],
)
def test_a_failed_run_says_its_cause(
    tracker: Tracker, error: str | None, cause: str | None, tag: str, text: str
) -> None:
    search = search_record(f"cause-{tag[:4]}")
    trial = trial_record("6" * 16, epochs=0, status="FAILED", error=error, cause=cause)
    assert tracker.sync(search, [trial]) == []
    [run_id] = tracker.runs(search).values()
    assert tracker._client.get_run(run_id).data.tags["dfd.error"] == tag
    assert Path(tracker._client.download_artifacts(run_id, "error.txt")).read_text() == text


def test_metrics_that_are_no_numbers_do_no_harm(anywhere: Tracker) -> None:
    search = search_record(f"nan-{anywhere._address.is_server}")
    history = [{"epoch": 1.0, "loss": math.nan, "val_loss": math.inf, "val_accuracy": 0.5}]
    metrics = {"loss": math.nan, "peak_memory_bytes": math.inf, "device_hours": math.nan}
    trial = trial_record("9" * 16, epochs=0, history=history, metrics=metrics)
    for _ in range(2):
        assert anywhere.sync(search, [trial]) == []
        anywhere._experiments.clear()  # what a later launch would know
    run = anywhere._client.get_run(anywhere.runs(search)[trial.key])
    assert math.isnan(run.data.metrics["loss"])
    assert run.data.metrics["val_loss"] > 1e300
    for name in ("loss", "peak_memory_bytes", "device_hours"):
        assert len(anywhere._client.get_metric_history(run.info.run_id, name)) == 1


# Failures


def test_a_failure_is_remembered_and_made_good_by_sync(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.exceptions import MlflowException

    search, trials = search_record("outage"), [trial_record(d * 16, epochs=1) for d in "89"]

    def refuse(*_: object, **__: object) -> None:
        raise MlflowException("the disk is full")

    with monkeypatch.context() as outage:
        outage.setattr(tracker._client, "log_batch", refuse)
        problem, slow = tracker.sync(search, trials, patience=0.5)
        assert "the disk is full" in problem
        assert "2 trials" in slow
        assert "\n" not in problem + slow
    assert tracker.sync(search, trials) == []
    assert len(tracker.runs(search)) == 2
    assert len(tracker._client.search_runs([tracker.experiment_id(search)])) == 2


def test_runs_and_experiments_deleted_by_hand_come_back(tracker: Tracker) -> None:
    search, trial = search_record("deleted"), trial_record("8" * 16, epochs=1, status="RUNNING")
    finished = trial_record("8" * 16, epochs=2)
    assert tracker.sync(search, [trial]) == []
    first = tracker.runs(search)[trial.key]
    tracker._client.delete_run(first)
    assert tracker.sync(search, [finished]) == []
    second = tracker.runs(search)[trial.key]
    assert second != first
    assert history_of(tracker, second, "loss") == [(1, 1.0), (2, 2.0)]

    tracker._client.delete_experiment(tracker.experiment_id(search))
    assert tracker.sync(search, [dataclasses.replace(finished, attempts=2)]) == []
    assert tracker._client.get_experiment_by_name("deleted").lifecycle_stage == "active"
