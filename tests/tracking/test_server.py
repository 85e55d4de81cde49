"""A real MLflow server: what goes there, what it shows, and what its coming and going costs."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from dfd_tune.errors import UserError
from dfd_tune.store import Store, open_store
from dfd_tune.tracking import Tracker, open_tracker, upload_report
from tests.tracking.conftest import QUICK, UiProcess
from tests.tracking.records import assert_one_value_a_step, history_of, runs_of, search_record, trial_record
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


def test_a_search_can_be_tracked_through_a_server(
    server: str, store: Store, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    tracker = open_tracker(store, server + "/")
    search, trial = search_record("remote"), trial_record("7" * 16, epochs=2)
    for _ in range(2):
        assert tracker.sync(search, [trial]) == []
    address = tracker.register_best(search, trial, student(), EXAMPLE, "remote-student")
    (tmp_path / "trials.csv").write_text("a,b")
    run_id = tracker.log_summary(search, [trial], [tmp_path / "trials.csv"], {"best": 1.0})
    assert tracker.close() == []
    assert [file.path for file in tracker._client.list_artifacts(run_id)] == ["trials.csv"]
    assert history_of(tracker, tracker.runs(search)[trial.key], "loss") == [(1, 1.0), (2, 2.0)]
    version = tracker._client.get_model_version_by_alias("remote-student", "best")
    assert address == "models:/remote-student@best"
    assert version.tags["dfd.trial_key"] == trial.key
    [logged] = tracker._client.search_logged_models([tracker.experiment_id(search)])
    files = {file.path for file in tracker._client.list_logged_model_artifacts(logged.model_id)}
    assert files >= {"MLmodel", "data", "requirements.txt"}
    assert capfd.readouterr() == ("", "")


def test_a_report_goes_where_its_search_was_recorded(server: str, tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    search = search_record("reported", mlflow=server)
    (tmp_path / "report.html").write_text("<p>")
    assert upload_report(store, None, search, tmp_path, [tmp_path / "report.html"]) is None
    assert not store.path("mlflow.db").exists()
    tracker = open_tracker(store, server)
    [summary] = runs_of(tracker, "reported")
    assert [file.path for file in tracker._client.list_artifacts(summary.info.run_id, "report")] == [
        "report/report.html"
    ]
    assert tracker.close() == []
    away = upload_report(store, "http://127.0.0.1:1", search, tmp_path, [])
    assert away is not None
    assert "refused" in away


def test_a_server_that_goes_and_comes_back_costs_nothing(ui_process: UiProcess, store: Store) -> None:
    tracker, patient = (open_tracker(store, ui_process.url, pauses=QUICK) for _ in range(2))
    search, keys = search_record("outage-server"), [digit * 16 for digit in "0123456789"]

    def report(epochs: int, status: str = "RUNNING") -> None:
        for key in keys[:5] if epochs < 3 else keys:
            tracker.log_trial(search, trial_record(key, epochs=epochs, status=status))

    report(1)
    ui_process.stop()  # in the middle of it, perhaps
    start = time.monotonic()
    for epochs in range(2, 40):
        report(epochs)
    assert time.monotonic() - start < 1
    assert len(tracker._outbox._waiting) <= len(keys)
    problem, slow = tracker._outbox.flush(0.5)
    assert "refused" in problem
    assert "10 trials not written" in slow

    ui_process.start()
    report(40)
    report(40, "FINISHED")
    # The other one has nothing to say but the summary, and waits with that until the server is back.
    summary = patient.log_summary(search_record("outage-summary"), [], [], {"best": 1.0})
    ui_process.wait()
    assert history_of(patient, summary, "best") == [(0, 1.0)]
    assert patient.close() == []
    finished = [trial_record(key, epochs=40) for key in keys]
    assert tracker.sync(search, finished) == []
    ids = tracker.runs(search)
    assert sorted(ids) == keys
    assert len(runs_of(tracker, "outage-server")) == len(keys)
    for run_id in ids.values():
        assert tracker._client.get_run(run_id).info.status == "FINISHED"
        assert history_of(tracker, run_id, "loss") == [(epoch, float(epoch)) for epoch in range(1, 41)]
        assert_one_value_a_step(tracker, run_id)
    assert tracker.close() == []


def test_a_server_that_stays_away_is_given_up_after_the_patience_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    with HTTPServer(("127.0.0.1", 0), EmptyMlflow) as there:
        thread = threading.Thread(target=there.serve_forever, daemon=True)
        thread.start()
        tracker = open_tracker(open_store(tmp_path), f"http://127.0.0.1:{there.server_port}", pauses=QUICK)
        there.shutdown()
    start = time.monotonic()
    problems = tracker.sync(search_record("away"), [trial_record(key * 16, epochs=1) for key in "ab"], patience=0.5)
    assert len(problems) == 2
    for write in (
        lambda: tracker.log_summary(search_record("away"), [], [], {}),
        lambda: tracker.log_report(search_record("away"), tmp_path, []),
    ):
        with pytest.raises(UserError, match="refused"):
            write()
    assert len(tracker.close(patience=0.5)) == 2
    assert time.monotonic() - start < 10
    assert capfd.readouterr() == ("", "")


class EmptyMlflow(BaseHTTPRequestHandler):
    """As much of a server as is asked when a tracker is opened."""

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"{}")

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass
