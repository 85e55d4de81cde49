"""A real MLflow server: what goes there, what it shows, and what its coming and going costs."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

from dfd_tune.store import Store
from dfd_tune.tracking import Tracker, open_tracker
from tests.tracking.records import history_of, search_record, trial_record
from tests.tracking.students import EXAMPLE, student


def test_what_went_straight_into_the_database_shows_in_the_server(
    server: str, tracker: Tracker, tmp_path: Path
) -> None:
    search = search_record("shown")
    (tmp_path / "plot.png").write_bytes(b"pixels")
    run_id = tracker.log_summary(search, [], [tmp_path / "plot.png"], {})
    with urllib.request.urlopen(f"{server}/api/2.0/mlflow/artifacts/list?run_id={run_id}") as answer:
        assert [file["path"] for file in json.load(answer)["files"]] == ["plot.png"]
    with urllib.request.urlopen(f"{server}/get-artifact?path=plot.png&run_uuid={run_id}") as answer:
        assert answer.read() == b"pixels"


def test_a_search_can_be_tracked_through_a_server(server: str, store: Store, tmp_path: Path) -> None:
    tracker = open_tracker(store, server + "/")
    search, trial = search_record("remote"), trial_record("7" * 16, epochs=2)
    for _ in range(2):
        assert tracker.sync(search, [trial]) == []
    address = tracker.register_best(search, trial, student(), EXAMPLE, "remote-student")
    (tmp_path / "trials.csv").write_text("a,b")
    run_id = tracker.log_summary(search, [trial], [tmp_path / "trials.csv"], {"best": 1.0})
    assert tracker.close() == []
    assert [file.path for file in tracker._client.list_artifacts(run_id)] == ["trials.csv"]
    assert history_of(tracker, tracker.runs("remote")[trial.key], "loss") == [(1, 1.0), (2, 2.0)]
    version = tracker._client.get_model_version_by_alias("remote-student", "best")
    assert address == "models:/remote-student@best"
    assert version.tags["dfd.trial_key"] == trial.key
    [logged] = tracker._client.search_logged_models([tracker.experiment_id("remote")])
    files = {file.path for file in tracker._client.list_logged_model_artifacts(logged.model_id)}
    assert files >= {"MLmodel", "data", "requirements.txt"}
