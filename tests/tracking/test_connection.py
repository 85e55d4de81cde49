"""Where MLflow is: databases, servers, and what does not answer."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import requests

from dfd_tune.errors import UserError
from dfd_tune.store import FolderStore, open_store
from dfd_tune.tracking import connection, open_tracker
from dfd_tune.tracking.connection import is_away
from tests.tracking.records import complaints_in, search_record


def test_a_server_that_refuses_or_is_silent_fails_in_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert connection.PROBE_SECONDS <= 5
    monkeypatch.setattr(connection, "PROBE_SECONDS", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        start = time.monotonic()
        with pytest.raises(UserError, match="refused"):
            open_tracker(FolderStore(tmp_path), f"http://127.0.0.1:{port}")
        silent.listen()
        with pytest.raises(UserError, match="timed out"):
            open_tracker(FolderStore(tmp_path), f"http://127.0.0.1:{port}")
        assert time.monotonic() - start < 5


def test_a_server_that_is_not_mlflow_is_a_user_error(tmp_path: Path) -> None:
    from http.server import BaseHTTPRequestHandler, HTTPServer

    class Teapot(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(404)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Teapot) as other:
        threading.Thread(target=other.serve_forever, daemon=True).start()
        with pytest.raises(UserError, match=r"can't be used .*404"):
            open_tracker(FolderStore(tmp_path), f"http://127.0.0.1:{other.server_port}")
        other.shutdown()


def test_a_file_that_is_no_database_is_a_user_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database, and long enough that SQLite looks at it" * 20)
    start = time.monotonic()
    with pytest.raises(UserError, match="not a database"):
        open_tracker(FolderStore(tmp_path), None)
    assert time.monotonic() - start < 10


def test_a_database_is_made_ready_once_it_is_wanted_and_what_is_wrong_with_it_told_of_then(tmp_path: Path) -> None:
    tracker = open_tracker(open_store(tmp_path / "good"), None, meanwhile=True)
    assert not (tmp_path / "good" / "mlflow.db").exists()
    tracker.prepare()
    assert tracker.experiment_id(search_record("any"))
    assert (tmp_path / "good" / "mlflow.db").is_file()
    tracker.raise_if_refused()
    assert tracker.close() == []
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "mlflow.db").write_text("this is no database, and long enough that SQLite looks at it" * 20)
    tracker = open_tracker(FolderStore(tmp_path / "bad"), None, meanwhile=True)
    tracker.raise_if_refused()
    with pytest.raises(UserError, match="not a database"):
        tracker.experiment_id(search_record("any"))
    with pytest.raises(UserError, match="not a database"):
        tracker.raise_if_refused()
    assert tracker.close() == []


def test_processes_that_open_a_fresh_store_at_once_all_succeed(tmp_path: Path) -> None:
    code = (
        "import os, sys, mlflow.store.tracking.sqlalchemy_store\n"  # once, for all: the import takes seconds
        "sys.path.insert(0, sys.argv[2])\n"
        "from dfd_tune.store import open_store; from dfd_tune.tracking import open_tracker\n"
        "from tests.tracking.records import search_record\n"
        "def use():\n"
        "    tracker = open_tracker(open_store(sys.argv[1]), None); tracker.runs(search_record('shared'))\n"
        "    os._exit(len(tracker.close()))\n"
        "def child():\n"
        "    try: use()\n"
        "    finally: os._exit(1)\n"
        "children = [os.fork() or child() for _ in range(6)]\n"
        "print([os.waitpid(child, 0)[1] for child in children])"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-c", code, str(tmp_path / "store"), str(Path(__file__).parents[2])]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert (ended.stdout, complaints_in(ended.stderr)) == ("[0, 0, 0, 0, 0, 0]\n", [])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]  # no ./mlruns or ./mlflow.db


def test_the_package_does_not_import_mlflow_or_torch() -> None:
    code = "import sys, dfd_tune.tracking; print({'mlflow', 'torch', 'sqlalchemy'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


@pytest.mark.parametrize(("status", "away"), [(401, False), (403, False), (404, False), (429, True), (503, True)])
def test_a_refused_file_is_not_tried_for_minutes(status: int, away: bool) -> None:
    response = requests.Response()
    response.status_code = status
    assert is_away(requests.HTTPError("…", response=response)) is away
