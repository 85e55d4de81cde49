"""What MLflow says of a search whose driver was killed."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from dfd_tune.record import save_search, save_trial
from dfd_tune.store import Store, open_store
from dfd_tune.tracking import Tracker, mark_interrupted, open_tracker, serve_ui
from tests.tracking.conftest import QUICK
from tests.tracking.records import assert_one_value_a_step, history_of, search_record, trial_record

SINCE = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
STATE = "INTERRUPTED since 2026-03-04T05:06:07+00:00"
RUNNING, DONE, STOPPED = "a" * 16, "b" * 16, "c" * 16


def killed(tracker: Tracker, name: str) -> tuple[object, list]:
    """A search as its records and MLflow stand after SIGKILL: the end of DONE did not reach MLflow any more."""
    search = search_record(name, mlflow=tracker.recorded_address)
    trials = [
        trial_record(RUNNING, epochs=1, status="RUNNING"),
        trial_record(DONE, epochs=1, status="RUNNING"),
        trial_record(STOPPED, epochs=1, status="KILLED"),
    ]
    assert tracker.sync(search, trials) == []
    return search, [trials[0], trial_record(DONE, epochs=2), trials[2]]


def test_runs_that_nobody_runs_any_more_are_killed_or_as_their_records_say(anywhere: Tracker, store: Store) -> None:
    name = f"killed-{anywhere._address.is_server}"
    search, trials = killed(anywhere, name)
    for _ in range(2):
        mark_interrupted(store, search, trials, SINCE.timestamp())
    client, ids = anywhere._client, anywhere.runs(search)
    runs = {key: client.get_run(run_id) for key, run_id in ids.items()}
    assert {key: run.info.status for key, run in runs.items()} == {
        RUNNING: "KILLED",
        DONE: "FINISHED",
        STOPPED: "KILLED",
    }
    assert {key: run.data.tags.get("dfd.state") for key, run in runs.items()} == {
        RUNNING: STATE,
        DONE: None,
        STOPPED: None,
    }
    assert runs[RUNNING].info.end_time == int(1000 * SINCE.timestamp())
    assert history_of(anywhere, ids[DONE], "loss") == [(1, 1.0), (2, 2.0)]

    later = open_tracker(store, anywhere.recorded_address, pauses=QUICK)
    assert later.sync(search, [trial_record(RUNNING, epochs=1, status="RUNNING")]) == []
    again = client.get_run(ids[RUNNING])
    assert (again.info.status, again.data.tags.get("dfd.state")) == ("RUNNING", None)
    mark_interrupted(store, search, trials, SINCE.timestamp())
    assert later.close() == []
    after = open_tracker(store, anywhere.recorded_address, pauses=QUICK)
    assert after.sync(search, [trial_record(key, epochs=2) for key in ids]) == []
    for run_id in ids.values():
        run = client.get_run(run_id)
        assert (run.info.status, run.data.tags.get("dfd.state")) == ("FINISHED", None)
        assert_one_value_a_step(after, run_id)
    assert after.close() == []


def test_a_search_that_never_came_to_mlflow_is_no_error_and_makes_nothing(tmp_path) -> None:
    store = open_store(tmp_path)
    mark_interrupted(store, search_record("none"), [], 0.0)
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_search_is_not_made(tracker: Tracker, store: Store) -> None:
    mark_interrupted(store, search_record("never"), [], 0.0)
    assert tracker._client.get_experiment_by_name("never") is None


@pytest.mark.parametrize("since", [None, SINCE.timestamp()])
def test_the_pages_are_told_only_of_a_search_that_is_not_alive(server: str, store: Store, since: float | None) -> None:
    tracker = open_tracker(store, server, pauses=QUICK)
    search, trials = killed(tracker, f"looked-at-{since is None}")
    save_search(store, search)
    for trial in trials:
        save_trial(store, search.search, trial)
    serve_ui(store, 5000, lambda line: None, search=search.search, interrupted_since=since)
    run = tracker._client.get_run(tracker.runs(search)[RUNNING])
    expected = ("RUNNING", None) if since is None else ("KILLED", STATE)
    assert (run.info.status, run.data.tags.get("dfd.state")) == expected
    assert tracker.close() == []
