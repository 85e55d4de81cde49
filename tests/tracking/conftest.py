"""One store, its MLflow database, and one real server on it, for all tests of this folder."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfd_tune.record import save_search
from dfd_tune.store import Store, open_store
from dfd_tune.tracking import Tracker, compare_url, open_tracker
from dfd_tune.tracking.outbox import Pauses
from dfd_tune.tracking.view import runs_url
from tests.tracking.records import search_record, trial_record

QUICK = Pauses(0.02, 0.2)

SERVE = """
import sys
from dfd_tune.store import open_store
from dfd_tune.tracking import serve_ui
say = lambda text: print(text, flush=True)
serve_ui(open_store(sys.argv[1]), int(sys.argv[2]), say, search='served')
say('ended')
"""


@pytest.fixture(autouse=True)
def _mlflow_settings_as_before() -> Iterator[None]:
    """Connecting to a server sets MLflow's variables for the whole process."""
    before = {name: value for name, value in os.environ.items() if name.startswith("MLFLOW_")}
    yield
    for name in [name for name in os.environ if name.startswith("MLFLOW_")]:
        del os.environ[name]
    os.environ.update(before)


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    # A blank and a letter outside ASCII must reach MLflow unharmed.
    return open_store(tmp_path_factory.mktemp("tracking") / "my störe")


@pytest.fixture(scope="session")
def tracker(store: Store) -> Iterator[Tracker]:
    tracker = open_tracker(store, None, pauses=QUICK)
    yield tracker
    tracker.close()


class UiProcess:
    """`serve_ui` in a process of its own."""

    def __init__(self, store: Store, port: int):
        self._command = [sys.executable, "-c", SERVE, str(store.root)]
        self.url = ""
        self.start(port)

    def start(self, port: int | None = None) -> None:
        """Start it, on the same port as before if none is given."""
        asked = str(port or self.url.rsplit(":", 1)[1])
        self.process = subprocess.Popen([*self._command, asked], stdout=subprocess.PIPE, text=True)

    def wait(self) -> list[str]:
        """The lines that it says once it answers."""
        assert self.process.stdout is not None
        said = [self.process.stdout.readline() for _ in range(4)]
        self.url = said[0].split()[1]
        return said

    def stop(self) -> None:
        """SIGTERM, which must leave no process behind."""
        group = _children_of(self.process.pid)
        assert group, "the server's processes"
        self.process.send_signal(signal.SIGTERM)
        assert self.process.stdout is not None
        assert self.process.stdout.read() == "ended\n"
        assert self.process.wait(timeout=20) == 0
        assert not any(Path(f"/proc/{pid}").exists() for pid in group)


@pytest.fixture(scope="session", autouse=True)
def starting_server(request: pytest.FixtureRequest) -> Iterator[tuple[UiProcess, int] | None]:
    """The server, started on a port that is taken. It starts while the first tests run, if any test needs it."""
    if not any({"ui_process", "anywhere"} & set(item.fixturenames) for item in request.session.items):
        yield None
        return
    store, tracker = request.getfixturevalue("store"), request.getfixturevalue("tracker")
    search, trial = search_record("served"), trial_record("e" * 16, epochs=1)
    save_search(store, search)
    assert tracker.sync(search, [trial]) == []
    tracker.log_summary(search, [trial], [], {})
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ui = UiProcess(store, port)
        yield ui, port
        ui.process.terminate()
        ui.process.wait(20)


@pytest.fixture(scope="session")
def ui_process(starting_server: tuple[UiProcess, int], tracker: Tracker) -> Iterator[UiProcess]:
    """The server's process, once it answers. At the end it must leave nothing behind."""
    ui, port = starting_server
    first, second, third, fourth = ui.wait()
    assert ui.url != f"http://127.0.0.1:{port}"
    search = search_record("served")
    experiment = tracker.experiment_id(search)
    assert first.startswith(f"MLflow: {ui.url} ")
    assert second.split()[-1] == runs_url(ui.url, experiment)
    assert third.split()[-1] == compare_url(ui.url, experiment, list(tracker.runs(search).values()))
    assert fourth.split()[-1].startswith(f"{ui.url}/#/experiments/{experiment}/runs/")
    yield ui
    ui.stop()


@pytest.fixture(scope="session")
def server(ui_process: UiProcess) -> str:
    """The address of the server, which shows the store's database."""
    return ui_process.url


@pytest.fixture(params=["database", "server"])
def anywhere(request: pytest.FixtureRequest, store: Store) -> Iterator[Tracker]:
    """A tracker straight into the database, and one through the server."""
    uri = request.getfixturevalue("server") if request.param == "server" else None
    tracker = open_tracker(store, uri, pauses=QUICK)
    yield tracker
    tracker.close()


def _children_of(parent: int) -> list[int]:
    """Process ids of all descendants."""
    pairs = [line.split() for line in subprocess.check_output(["ps", "-eo", "pid=,ppid="], text=True).splitlines()]
    direct = [int(pid) for pid, ppid in pairs if int(ppid) == parent]
    return direct + [descendant for child in direct for descendant in _children_of(child)]
