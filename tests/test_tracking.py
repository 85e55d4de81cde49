"""MLflow as a search sees it: a real database, a real server, wrong addresses, and failures kept apart."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from dfd_tune.errors import UserError
from dfd_tune.record import SearchRecord, TrialRecord
from dfd_tune.store import Store, open_store
from dfd_tune.tracking import Tracker, compare_url, connection, open_tracker
from dfd_tune.tracking.connection import resolve_address, shown
from dfd_tune.tracking.outbox import Outbox

NAMES = (
    "loss",
    "cross_entropy",
    "distillation",
    "train_accuracy",
    "val_accuracy",
    "val_loss",
    "learning_rate",
)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    # A blank and a letter outside ASCII must reach MLflow unharmed.
    return open_store(tmp_path_factory.mktemp("tracking") / "my störe")


@pytest.fixture(scope="module")
def tracker(store: Store) -> Iterator[Tracker]:
    tracker = open_tracker(store, None)
    yield tracker
    tracker.close()


@pytest.fixture(scope="module", autouse=True)
def starting_server(store: Store, tracker: Tracker) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """`serve_ui` in a process of its own, on a port that is taken. It starts while the first tests run."""
    search, trial = search_record("served"), trial_record("e" * 16, epochs=1)
    assert tracker.sync(search, [trial]) == []
    tracker.log_summary(search, [trial], [], {})
    code = (
        "import sys; from dfd_tune.store import open_store; from dfd_tune.tracking import serve_ui\n"
        "say = lambda text: print(text, flush=True)\n"
        "serve_ui(open_store(sys.argv[1]), int(sys.argv[2]), say, search='served')\n"
        "say('ended')"
    )
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [sys.executable, "-c", code, str(store.root), str(port)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            yield process, port
            process.terminate()


@pytest.fixture(scope="module")
def server(starting_server: tuple[subprocess.Popen[str], int], tracker: Tracker) -> Iterator[str]:
    """The address of the server, once it answers. At the end, SIGTERM must leave no process behind."""
    process, port = starting_server
    assert process.stdout is not None
    first, second, third = (process.stdout.readline() for _ in range(3))
    url = first.split()[1]
    assert url != f"http://127.0.0.1:{port}"
    experiment = tracker.experiment_id("served")
    assert second.split()[-1] == f"{url}/#/experiments/{experiment}/runs"
    assert third.split()[-1] == compare_url(url, experiment, list(tracker.runs("served").values()))
    yield url
    group = _children_of(process.pid)
    assert group, "the server's processes"
    process.send_signal(signal.SIGTERM)
    assert process.stdout.read() == "ended\n"
    assert process.wait(timeout=20) == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in group)


def _children_of(parent: int) -> list[int]:
    """Process ids of all descendants."""
    pairs = [line.split() for line in subprocess.check_output(["ps", "-eo", "pid=,ppid="], text=True).splitlines()]
    direct = [int(pid) for pid, ppid in pairs if int(ppid) == parent]
    return direct + [descendant for child in direct for descendant in _children_of(child)]


def search_record(name: str) -> SearchRecord:
    dataset = {
        "dataset": "digits",
        "data": None,
        "digest": "d" * 16,
        "classes": 3,
        "channels": 3,
        "image_size": 32,
    }
    return SearchRecord(
        search=name,
        space="tiny",
        explored={"lambda_": [0.0, 2.0]},
        dataset={**dataset, "train_size": 100, "validation_size": 10, "test_size": 20},
        settings={},
        sampler="grid",
        num_trials=2,
        seed=0,
        planned=[],
    )


def trial_record(key: str, *, epochs: int, status: str = "FINISHED", **changes: object) -> TrialRecord:
    history = [{"epoch": float(e), **{name: e + i / 10 for i, name in enumerate(NAMES)}} for e in range(1, epochs + 1)]
    metrics = {**(history[-1] if history else {}), **({"seconds": 7.5} if status == "FINISHED" else {})}
    metrics.pop("epoch", None)
    record = TrialRecord(
        key=key,
        status=status,  # type: ignore[arg-type]
        config={"backbone": "resnet18", "lambda_": 2.0, "seed": 0, "student_start": "scratch"},
        teacher="t" * 16,
        metrics=metrics,
        history=history,
    )
    return dataclasses.replace(record, **changes)  # type: ignore[arg-type]


def _history(tracker: Tracker, run_id: str, name: str) -> list[tuple[int, float]]:
    return [(metric.step, metric.value) for metric in tracker._client.get_metric_history(run_id, name)]


# One trial's run


def test_a_finished_trial_is_one_complete_run(tracker: Tracker, store: Store) -> None:
    search, trial = search_record("complete"), trial_record("a" * 16, epochs=3)
    assert tracker.sync(search, [trial]) == []
    [(key, run_id)] = tracker.runs("complete").items()
    run = tracker._client.get_run(run_id)
    assert key == trial.key
    assert run.info.run_name == "resnet18 λ=2 seed=0 aaaaaa"
    assert run.info.status == "FINISHED"
    assert run.info.end_time - run.info.start_time == 7500
    assert run.data.params == {name: str(value) for name, value in trial.config.items()}
    expected = {
        "kind": "trial",
        "trial_key": trial.key,
        "space": "tiny",
        "dataset": "digits",
        "search": "complete",
    }
    expected |= {"backbone": "resnet18", "teacher_key": "t" * 16}
    assert {name[4:]: value for name, value in run.data.tags.items() if name.startswith("dfd.")} == expected
    for i, name in enumerate(NAMES):
        assert _history(tracker, run_id, name) == [(e, e + i / 10) for e in (1, 2, 3)]
    assert _history(tracker, run_id, "seconds") == [(3, 7.5)]
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
    assert another.runs("again").keys() == {key}
    run_id = another.runs("again")[key]
    assert len(another._client.search_runs([another.experiment_id("again")])) == 1
    assert _history(another, run_id, "loss") == [(e, float(e)) for e in (1, 2, 3, 4)]
    assert _history(another, run_id, "epoch") == [(e, float(e)) for e in (1, 2, 3, 4)]
    assert _history(another, run_id, "seconds") == [(4, 7.5)]


def test_the_status_is_truthful_from_failure_to_success(tracker: Tracker) -> None:
    search, key = search_record("status"), "c" * 16
    client = tracker._client

    def write(record: TrialRecord) -> str:
        assert tracker.sync(search, [record]) == []
        return tracker.runs("status")[key]

    assert tracker.sync(search, [trial_record(key, epochs=0, status="PENDING")]) == []
    assert tracker.runs("status") == {}
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


def test_times_come_from_the_clock(store: Store) -> None:
    seconds = iter([100.0, 160.0])
    tracker = open_tracker(store, None, clock=lambda: next(seconds))
    search, key = search_record("clock"), "d" * 16
    assert tracker.sync(search, [trial_record(key, epochs=1, status="RUNNING")]) == []
    assert tracker.sync(search, [trial_record(key, epochs=2)]) == []
    info = tracker._client.get_run(tracker.runs("clock")[key]).info
    assert (info.start_time, info.end_time) == (100_000, 160_000)
    assert tracker.close() == []


def test_long_histories_and_many_params_keep_within_the_limits(tracker: Tracker) -> None:
    config = {**trial_record("f" * 16, epochs=0).config, **{f"setting_{i}": i for i in range(150)}}
    trial = trial_record("f" * 16, epochs=130, config=config)  # 130 × 8 metrics, more than one call may hold
    assert tracker.sync(search_record("long"), [trial]) == []
    run_id = tracker.runs("long")["f" * 16]
    assert len(tracker._client.get_run(run_id).data.params) == 154
    assert _history(tracker, run_id, "val_loss") == [(e, e + 0.5) for e in range(1, 131)]


# Summary and model


class StandIn(nn.Module):
    """Small, with all that the real student has: uint8 (N, H, W, C) in, resampling, softmax out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.linear = nn.Linear(4, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        x = images.permute(0, 3, 1, 2).float()
        x = F.interpolate(x, size=(8, 8), mode="bicubic", antialias=True).round().clamp(0, 255)
        x = F.interpolate(x, size=(32, 32), mode="bicubic") / 255
        return self.linear(F.relu(self.conv(x)).mean((2, 3))).softmax(1)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return StandIn().eval()


EXAMPLE = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)


def test_the_summary_is_one_run_with_files(tracker: Tracker, tmp_path: Path) -> None:
    search = search_record("summed")
    trials = [trial_record("1" * 16, epochs=1), trial_record("2" * 16, epochs=1, status="KILLED")]
    (tmp_path / "report.md").write_text("# Report")
    run_ids = {
        tracker.log_summary(search, trials, [tmp_path / "report.md"], {"test_accuracy": 0.5}, {"dfd.best": "x"})
        for _ in range(2)
    }
    [run_id] = run_ids
    run = tracker._client.get_run(run_id)
    assert (run.info.run_name, run.info.status, run.data.tags["dfd.kind"]) == (
        "summary",
        "FINISHED",
        "summary",
    )
    assert run.data.tags["dfd.best"] == "x"
    assert run.data.metrics == {"test_accuracy": 0.5, "trials_finished": 1.0, "trials_killed": 1.0}
    assert _history(tracker, run_id, "test_accuracy") == [(0, 0.5)]
    assert [file.path for file in tracker._client.list_artifacts(run_id)] == ["report.md"]
    assert tracker.runs("summed") == {}


def test_the_best_model_predicts_in_a_fresh_process(
    tracker: Tracker,
    store: Store,
    model: nn.Module,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import mlflow

    monkeypatch.chdir(tmp_path)

    before = (mlflow.get_tracking_uri(), mlflow.get_registry_uri(), mlflow.active_run())
    search, first, second = search_record("best-1.5"), *(trial_record(d * 16, epochs=1) for d in "34")
    address = tracker.register_best(search, first, model, EXAMPLE, "student-1.5")
    assert tracker.register_best(search, first, model, EXAMPLE, "student-1.5") == address
    client = tracker._client
    assert address == "models:/student-1.5@best"
    assert [v.version for v in client.search_model_versions("name = 'student-1.5'")] == [1]
    assert capfd.readouterr() == ("", "")
    assert (mlflow.get_tracking_uri(), mlflow.get_registry_uri(), mlflow.active_run()) == before

    _predicts(tracker.address, address, model, tmp_path)
    version = client.get_model_version_by_alias("student-1.5", "best")
    assert version.tags["dfd.trial_key"] == first.key
    [logged] = client.search_logged_models([tracker.experiment_id("best-1.5")])
    assert (logged.status, logged.tags["dfd.trial_key"]) == ("READY", first.key)
    assert logged.artifact_location.startswith(store.path("mlflow_artifacts").as_uri())
    assert logged.params["lambda_"] == "2.0"
    summary = client.get_run(version.run_id)
    assert summary.data.tags["dfd.kind"] == "summary"
    assert [output.model_id for output in summary.outputs.model_outputs] == [logged.model_id]

    tracker.register_best(search, second, model, EXAMPLE, "student-1.5")
    assert client.get_model_version_by_alias("student-1.5", "best").version == 2
    tracker.register_best(search, first, model, EXAMPLE, "student-1.5")  # the first is the best again
    assert client.get_model_version_by_alias("student-1.5", "best").version == 1
    assert len(client.search_model_versions("name = 'student-1.5'")) == 2


def _predicts(uri: str, address: str, model: nn.Module, folder: Path) -> None:
    """Load the model by its address in another process, which does not have its class, and compare."""
    code = (
        "import sys, mlflow, numpy as np\n"
        "mlflow.set_tracking_uri(sys.argv[1])\n"
        "model = mlflow.pyfunc.load_model(sys.argv[2])\n"
        "batches = np.load(sys.argv[3])\n"
        "np.savez(sys.argv[4], **{name: model.predict(batch) for name, batch in batches.items()})"
    )
    generator = np.random.default_rng(1)
    shapes = {"many": (5, 100, 70, 3), "one": (1, 8, 8, 3), "as_example": (3, 32, 32, 3)}
    batches = {name: generator.integers(0, 256, shape, dtype=np.uint8) for name, shape in shapes.items()}
    np.savez(folder / "in.npz", **batches)
    command = [sys.executable, "-c", code, uri, address, str(folder / "in.npz"), str(folder / "out.npz")]
    subprocess.run(command, check=True, cwd=folder, capture_output=True)
    predictions = np.load(folder / "out.npz")
    for name, batch in batches.items():
        with torch.no_grad():
            expected = model(torch.from_numpy(batch)).numpy()
        assert predictions[name].dtype == np.float32
        np.testing.assert_allclose(predictions[name], expected, rtol=1e-5, atol=1e-6)
    assert sorted(path.name for path in folder.iterdir()) == ["in.npz", "out.npz"]  # no ./mlruns, ./mlflow.db


def test_a_model_that_cannot_be_exported_leaves_no_version(tracker: Tracker) -> None:
    class Stubborn(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.float().flatten(1)[:, : int(images.sum()) % 2 + 1]  # its shape depends on the data

    search, trial = search_record("stubborn"), trial_record("5" * 16, epochs=1)
    with pytest.raises(Exception, match="data-dependent"):
        tracker.register_best(search, trial, Stubborn().eval(), EXAMPLE, "stubborn")
    assert list(tracker._client.search_model_versions("name = 'stubborn'")) == []
    [logged] = tracker._client.search_logged_models([tracker.experiment_id("stubborn")])
    assert logged.status == "FAILED"


def test_a_model_name_that_mlflow_refuses_is_a_user_error(tracker: Tracker, model: nn.Module) -> None:
    with pytest.raises(UserError, match="'a/b' must be"):
        tracker.register_best(search_record("x"), trial_record("6" * 16, epochs=1), model, EXAMPLE, "a/b")


# The server


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


def test_a_search_can_be_tracked_through_a_server(server: str, store: Store, model: nn.Module, tmp_path: Path) -> None:
    tracker = open_tracker(store, server + "/")
    search, trial = search_record("remote"), trial_record("7" * 16, epochs=2)
    for _ in range(2):
        assert tracker.sync(search, [trial]) == []
    address = tracker.register_best(search, trial, model, EXAMPLE, "remote-student")
    (tmp_path / "trials.csv").write_text("a,b")
    run_id = tracker.log_summary(search, [trial], [tmp_path / "trials.csv"], {"best": 1.0})
    assert tracker.close() == []
    assert [file.path for file in tracker._client.list_artifacts(run_id)] == ["trials.csv"]
    assert _history(tracker, tracker.runs("remote")[trial.key], "loss") == [(1, 1.0), (2, 2.0)]
    version = tracker._client.get_model_version_by_alias("remote-student", "best")
    assert address == "models:/remote-student@best"
    assert version.tags["dfd.trial_key"] == trial.key
    [logged] = tracker._client.search_logged_models([tracker.experiment_id("remote")])
    files = {file.path for file in tracker._client.list_logged_model_artifacts(logged.model_id)}
    assert files >= {"MLmodel", "data", "requirements.txt"}


@pytest.mark.parametrize("where", ["database", "server"])
def test_metrics_that_are_no_numbers_do_no_harm(
    tracker: Tracker, store: Store, where: str, request: pytest.FixtureRequest
) -> None:
    uri = request.getfixturevalue("server") if where == "server" else None
    mine = open_tracker(store, uri)
    history = [{"epoch": 1.0, "loss": math.nan, "val_loss": math.inf, "val_accuracy": 0.5}]
    trial = trial_record("9" * 16, epochs=0, history=history, metrics={"loss": math.nan})
    for _ in range(2):
        assert mine.sync(search_record(f"nan-{where}"), [trial]) == []
    assert mine.close() == []
    run = mine._client.get_run(mine.runs(f"nan-{where}")[trial.key])
    assert math.isnan(run.data.metrics["loss"])
    assert run.data.metrics["val_loss"] > 1e300
    assert len(mine._client.get_metric_history(run.info.run_id, "loss")) == 1


def test_the_comparison_page_names_runs_and_experiment() -> None:
    url = compare_url("http://host:5000/", "7", ["r1", "r2"])
    assert unquote(url) == 'http://host:5000/#/compare-runs?runs=["r1","r2"]&experiments=["7"]'
    assert not set(url) & set('[]" ')


# Where MLflow is


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("./mlruns", "is a folder"),
        ("file:///tmp/mlruns", "is a folder"),
        ("ftp://host/x", "is neither a server"),
        ("sqlite:///:memory:", "in memory"),
        ("sqlite:////no/such/folder/mlflow.db", "make it"),
        ("http://", "names no host"),
        ("http://127.0.0.1:port", "No MLflow server answers"),
    ],
)
def test_an_address_that_will_not_do_is_refused_with_a_remedy(tmp_path: Path, uri: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        resolve_address(Store(tmp_path), uri)
    assert str(caught.value).count("\n") == 0


def test_a_server_that_refuses_or_is_silent_fails_in_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert connection.PROBE_SECONDS <= 5
    monkeypatch.setattr(connection, "PROBE_SECONDS", 1)
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        port = silent.getsockname()[1]
        start = time.monotonic()
        with pytest.raises(UserError, match="refused"):
            open_tracker(Store(tmp_path), f"http://127.0.0.1:{port}")
        silent.listen()
        with pytest.raises(UserError, match="timed out"):
            open_tracker(Store(tmp_path), f"http://127.0.0.1:{port}")
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
            open_tracker(Store(tmp_path), f"http://127.0.0.1:{other.server_port}")
        other.shutdown()


def test_a_file_that_is_no_database_is_a_user_error_at_once(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("this is no database, and long enough that SQLite looks at it" * 20)
    start = time.monotonic()
    with pytest.raises(UserError, match="not a database"):
        open_tracker(Store(tmp_path), None)
    assert time.monotonic() - start < 10


def test_passwords_stay_out_of_messages() -> None:
    assert shown("postgresql://me:secret@host/db") == "postgresql://me:***@host/db"


def test_a_store_whose_path_mlflow_would_misread_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="has a '%' in its path"):
        resolve_address(Store(tmp_path / "50%"), None)


def test_a_relative_database_is_the_same_from_every_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert resolve_address(Store(tmp_path), "sqlite:///a.db") == f"sqlite:///{tmp_path}/a.db"


def test_processes_that_open_a_fresh_store_at_once_all_succeed(tmp_path: Path) -> None:
    code = (
        "import os, sys, mlflow.store.tracking.sqlalchemy_store\n"  # once, for all: the import takes seconds
        "from dfd_tune.store import open_store; from dfd_tune.tracking import open_tracker\n"
        "def use():\n"
        "    tracker = open_tracker(open_store(sys.argv[1]), None); tracker.runs('shared')\n"
        "    os._exit(len(tracker.close()))\n"
        "def child():\n"
        "    try: use()\n"
        "    finally: os._exit(1)\n"
        "children = [os.fork() or child() for _ in range(6)]\n"
        "print([os.waitpid(child, 0)[1] for child in children])"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [sys.executable, "-c", code, str(tmp_path / "store")]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert (ended.stdout, ended.stderr) == ("[0, 0, 0, 0, 0, 0]\n", "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]  # no ./mlruns or ./mlflow.db


def test_the_package_does_not_import_mlflow_or_torch() -> None:
    code = "import sys, dfd_tune.tracking; print({'mlflow', 'torch', 'sqlalchemy'} & set(sys.modules))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "set()\n"


# Failures stay out of the search


def test_a_failure_is_remembered_and_made_good_by_sync(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.exceptions import MlflowException

    search, trials = search_record("outage"), [trial_record(d * 16, epochs=1) for d in "89"]

    def refuse(*_: object, **__: object) -> None:
        raise MlflowException("the disk is full")

    with monkeypatch.context() as outage:
        outage.setattr(tracker._client, "log_batch", refuse)
        [problem] = tracker.sync(search, trials)
        assert "the disk is full" in problem
        assert "\n" not in problem
    assert tracker.sync(search, trials) == []
    assert len(tracker.runs("outage")) == 2
    assert len(tracker._client.search_runs([tracker.experiment_id("outage")])) == 2


def test_runs_and_experiments_deleted_by_hand_come_back(tracker: Tracker) -> None:
    search, trial = search_record("deleted"), trial_record("8" * 16, epochs=1, status="RUNNING")
    finished = trial_record("8" * 16, epochs=2)
    assert tracker.sync(search, [trial]) == []
    first = tracker.runs("deleted")[trial.key]
    tracker._client.delete_run(first)
    assert len(tracker.sync(search, [finished])) == 1  # noticed,
    assert tracker.sync(search, [finished]) == []  # and mended
    second = tracker.runs("deleted")[trial.key]
    assert second != first
    assert _history(tracker, second, "loss") == [(1, 1.0), (2, 2.0)]

    tracker._client.delete_experiment(tracker.experiment_id("deleted"))
    tracker._experiments.clear()
    assert tracker.sync(search, [finished]) == []
    assert tracker._client.get_experiment_by_name("deleted").lifecycle_stage == "active"


def test_an_outbox_keeps_the_latest_of_each_key_and_does_not_make_its_owner_wait() -> None:
    gate, written = threading.Event(), []

    def write(update: int) -> None:
        gate.wait(10)
        written.append(update)

    box: Outbox[int] = Outbox(write, str)
    box.put("a", 1)
    while box._waiting:  # until the thread holds the first
        time.sleep(0.001)
    for update in (2, 3, 4):
        box.put("a", update)
    box.put("b", 5)
    [slow] = box.flush(0.01)
    assert "3 trials not written" in slow
    gate.set()
    assert box.close(10) == []
    assert written == [1, 4, 5]
    box._thread.join(10)
    assert not box._thread.is_alive()


def test_an_outbox_forgets_a_problem_once_the_key_is_written() -> None:
    refuse = True

    def write(update: int) -> None:
        if refuse:
            raise RuntimeError("no")

    box: Outbox[int] = Outbox(write, lambda error: f"problem: {error}")
    box.put("a", 1)
    box.put("b", 1)
    assert box.flush(10) == ["problem: no"]
    refuse = False
    box.put("a", 2)
    assert box.flush(10) == ["problem: no"]  # b is still unwritten
    box.put("b", 2)
    assert box.close(10) == []
