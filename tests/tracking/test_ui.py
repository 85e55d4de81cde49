"""The pages of a search, wherever it was recorded. How they are served is tested where the server starts: conftest."""

from __future__ import annotations

import subprocess
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from urllib.parse import unquote

import pytest

from dfd_tune.errors import UserError
from dfd_tune.record import save_search
from dfd_tune.store import FolderStore, open_store
from dfd_tune.tracking import Tracker, compare_url, serve_ui
from dfd_tune.tracking.address import read_address
from dfd_tune.tracking.ui import _say_pages, _server
from dfd_tune.tracking.view import runs_url
from tests.tracking.records import search_record, trial_record


def test_the_comparison_page_names_runs_and_experiment() -> None:
    url = compare_url("http://host:5000/", "7", ["r1", "r2"])
    assert (
        unquote(url)
        == 'http://host:5000/#/compare-runs?runs=["r1","r2"]&experiments=["7"]&workflowType=machine_learning'
    )
    assert not set(url) & set('[]" ')


def test_an_unknown_search_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nowhere"):
        serve_ui(FolderStore(tmp_path), 5000, print, search="nowhere")


@pytest.mark.parametrize("address", ["http://127.0.0.1:1", "postgresql://127.0.0.1:1/db"])
def test_where_a_search_was_recorded_must_answer(tmp_path: Path, address: str) -> None:
    store = open_store(tmp_path)
    save_search(store, search_record("away", mlflow=address))
    with pytest.raises(UserError) as caught:
        serve_ui(store, 5000, print, search="away")
    assert address in caught.value.problems[0]
    assert "--mlflow-uri" in caught.value.problems[-1]
    assert "'away'" in caught.value.problems[-1]
    assert not store.path("mlflow.db").exists()


def test_a_database_that_a_search_was_recorded_to_is_the_one_served(tmp_path: Path, monkeypatch) -> None:
    store = open_store(tmp_path / "store")
    address = f"sqlite:///{tmp_path}/other.db"
    save_search(store, search_record("elsewhere", mlflow=address))
    served = []

    def started(command: list[str], **options: object) -> None:
        served.append((command, options["env"]))
        raise UserError("enough")

    monkeypatch.setattr(subprocess, "Popen", started)
    with pytest.raises(UserError, match="enough"):
        serve_ui(store, 5000, print, search="elsewhere")
    [(command, environment)] = served
    assert environment["MLFLOW_BACKEND_STORE_URI"] == address
    assert not any("other.db" in word for word in command)
    assert (tmp_path / "other.db").exists()


def test_a_password_is_not_on_the_servers_command_line(tmp_path: Path) -> None:
    address = read_address(FolderStore(tmp_path), "postgresql://me:QXZJ789@127.0.0.1:1/db")
    with _server(FolderStore(tmp_path), address, "http://127.0.0.1:1") as (process, _):
        words = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        while b"mlflow" not in words:  # until it is the server's
            time.sleep(0.001)
            words = Path(f"/proc/{process.pid}/cmdline").read_bytes()
    assert b"QXZJ" not in words


class Protected(BaseHTTPRequestHandler):
    """Lets in who has the password, as MLflow's basic-auth does; it holds nothing."""

    seen: list = []  # noqa: RUF012

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.do_GET()

    def do_GET(self) -> None:
        self.seen.append(self.headers.get("Authorization"))
        allowed = self.headers.get("Authorization") == "Basic bWU6cEBzczp3LzpvcmQ="  # me:p@ss:w/:ord
        self.send_response(200 if allowed else 401)
        self.end_headers()
        self.wfile.write(b'{"experiments": []}' if allowed else b"You are not authenticated.")

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def protected():
    with HTTPServer(("127.0.0.1", 0), Protected) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


def test_a_server_that_wants_a_password_gets_it_from_the_address_or_the_environment(
    protected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    store, said = open_store(tmp_path), []
    save_search(store, search_record("protected", mlflow=f"http://127.0.0.1:{protected}"))
    with pytest.raises(UserError, match="401") as caught:
        serve_ui(store, 5000, said.append, search="protected")
    assert "MLFLOW_TRACKING_PASSWORD" in caught.value.problems[-1]
    uri = f"http://me:p%40ss%3Aw%2F%3Aord@127.0.0.1:{protected}"
    serve_ui(store, 5000, said.append, search="protected", uri=uri)
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name)
    with pytest.raises(UserError, match="401"):
        serve_ui(store, 5000, said.append, search="protected")
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "me")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "p@ss:w/:ord")
    serve_ui(store, 5000, said.append, search="protected")
    assert said == [f"MLflow: http://127.0.0.1:{protected} (a server; nothing is started here)"] * 2
    assert capfd.readouterr() == ("", "")
    assert "p@ss" not in "".join(said)


def test_where_mlflow_takes_no_view_the_address_names_none(anywhere: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.exceptions import MlflowException

    def refuse(*_: object) -> None:
        raise MlflowException("Permission denied")

    search, said = search_record(f"viewless-{anywhere._address.is_server}"), []
    assert anywhere.sync(search, [trial_record("a" * 16, epochs=1)]) == []
    number = anywhere.experiment_id(search)
    with monkeypatch.context() as reader:
        reader.setattr(anywhere._client, "set_experiment_tag", refuse)
        _say_pages(anywhere._client, anywhere._address, anywhere._store, search, said.append)
        changed = search_record(search.search, explored={"backbone": ["vgg16"]})
        _say_pages(anywhere._client, anywhere._address, anywhere._store, changed, said.append)
    pages = [line for line in said if line.startswith("Runs of")]
    assert [page.rpartition(": ")[2] for page in pages] == [
        runs_url(anywhere.address, number),
        runs_url(anywhere.address, number, view=False),
    ]
