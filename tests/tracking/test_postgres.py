"""A search recorded at a team's tracking server: MLflow on PostgreSQL, with accounts, reached by address and password.

Both are private to these tests, and real: Debian's PostgreSQL in a folder of its own, run by a user who is not root,
and `mlflow server --app-name basic-auth`.
"""

from __future__ import annotations

import contextlib
import json
import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest

from dfd_tune.record import load_search, load_trials
from dfd_tune.report.summary import summary_of
from dfd_tune.store import open_store
from dfd_tune.tracking import mirror, open_tracker
from tests.tracking.copies import concluded_search, write_folder
from tests.tracking.records import history_of

BINARIES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
DATABASE_PASSWORD, ADMIN_PASSWORD = "database-QXZJ-4711", "admin-QXZJ-4712"
USER, PASSWORD = "researcher", "p@ss:w/QXZJ-4713 %3A?#"
SECRETS = ("QXZJ", "p%40ss", b64encode(f"{USER}:{PASSWORD}".encode()).decode())


def _why_not() -> str | None:
    if BINARIES is None:
        return "there is no PostgreSQL (Debian's package postgresql)"
    if os.geteuid() == 0 and not any(entry.pw_name == "postgres" for entry in pwd.getpwall()):
        return "PostgreSQL refuses to be run by root, and there is no user `postgres`"
    return None


pytestmark = [pytest.mark.slow, pytest.mark.skipif(_why_not() is not None, reason=str(_why_not()))]


@pytest.fixture(scope="module")
def database() -> Iterator[str]:
    """The address of an empty database, and of another named `accounts` beside it."""
    assert BINARIES is not None
    owner = "postgres" if os.geteuid() == 0 else None
    # Not one of pytest's, into which another user may not look.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    (folder / "password").write_text(DATABASE_PASSWORD)
    if owner is not None:
        for path in (folder, folder / "password"):
            shutil.chown(path, owner)

    def run(program: str, *arguments: str) -> None:
        environment = {"PATH": os.environ["PATH"], "PGPASSWORD": DATABASE_PASSWORD, "LC_ALL": "C.UTF-8"}
        command = [str(BINARIES / program), *arguments]
        subprocess.run(command, check=True, user=owner, cwd=folder, env=environment, stdout=subprocess.DEVNULL)

    port = _free_port()
    settings = f"-p {port} -h 127.0.0.1 -k {folder} -c fsync=off"
    try:
        run("initdb", "-D", "data", "-U", "dfd", "-A", "scram-sha-256", f"--pwfile={folder}/password", "-N")
        run("pg_ctl", "-D", "data", "-w", "-l", "log", "-o", settings, "start")
        try:
            for name in ("mlflow", "accounts"):
                run("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "dfd", name)
            yield f"postgresql+psycopg2://dfd:{DATABASE_PASSWORD}@127.0.0.1:{port}/mlflow"
        finally:
            run("pg_ctl", "-D", "data", "-w", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def team_server(database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that knows an administrator and USER."""
    folder, port = tmp_path_factory.mktemp("server"), _free_port()
    (folder / "accounts.ini").write_text(
        "[mlflow]\n"
        "default_permission = READ\n"
        f"database_uri = {database.removesuffix('mlflow')}accounts\n"
        "admin_username = admin\n"
        f"admin_password = {ADMIN_PASSWORD}\n"
    )
    settings = {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "accounts.ini"),
        "MLFLOW_BACKEND_STORE_URI": database,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "made up",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    command = [sys.executable, "-m", "mlflow", "server", "--app-name", "basic-auth", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--artifacts-destination", str(folder / "artifacts"), "--workers", "1"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **settings}, stdout=log, stderr=log, start_new_session=True
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait_for(url, process, folder / "log")
        _make_account(url)
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 15)
        process.wait(timeout=60)


def _wait_for(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 180
    while time.monotonic() < end and process.poll() is None:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
            return
        time.sleep(0.2)
    raise AssertionError(log.read_text())


def _make_account(url: str) -> None:
    request = urllib.request.Request(
        f"{url}/api/2.0/mlflow/users/create",
        json.dumps({"username": USER, "password": PASSWORD}).encode(),
        {
            "Content-Type": "application/json",
            "Authorization": "Basic " + b64encode(f"admin:{ADMIN_PASSWORD}".encode()).decode(),
        },
    )
    with urllib.request.urlopen(request) as answer:
        assert answer.status == 200


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", USER)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", PASSWORD)


SPACE = "confirm: {seeds: 0}\nexplore:\n  lambda_: [0, 2]\nsettings: {width: 0.125, epochs: 2, batch_size: 25}\n"
FEW = ("--set", "train_images=100", "--set", "test_images=60")


def test_a_search_is_recorded_there_and_no_password_is_told(
    team_server: str, account: None, run_process, tmp_path: Path
) -> None:
    (tmp_path / "small.yaml").write_text(SPACE)
    root = tmp_path / "store"
    launch = (
        "launch",
        "--dataset",
        "digits",
        "--space",
        tmp_path / "small.yaml",
        "--name",
        "team",
        "--store",
        root,
        *FEW,
    )
    done = run_process(*launch, "--mlflow-uri", team_server)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    store = open_store(root)
    search = load_search(store, "team")
    assert search.mlflow == team_server
    tracker = open_tracker(store, team_server)
    ids = tracker.runs(search)
    for trial in load_trials(store, search):
        assert tracker._client.get_run(ids[trial.key]).info.status == "FINISHED"
        expected = [(entry["epoch"], entry["val_accuracy"]) for entry in trial.history]
        assert history_of(tracker, ids[trial.key], "val_accuracy") == expected
    version = tracker._client.get_model_version_by_alias("team", "best")
    assert version.tags["dfd.trial_key"] == search.best.key
    assert tracker.close() == []

    shown = run_process("ui", "team", "--store", root)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert f"{team_server}/#/compare-runs" in shown.stdout
    for text in (done.stdout, shown.stdout, *_texts_below(root)):
        assert not any(secret in text for secret in SECRETS)


def _texts_below(folder: Path) -> Iterator[str]:
    for file in folder.rglob("*"):
        if file.is_file():
            yield file.read_bytes().decode(errors="replace")


def test_without_the_account_it_is_one_sentence(team_server: str, run_process, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SPACE)
    launch = ("launch", "--dataset", "digits", "--space", tmp_path / "small.yaml", "--store", tmp_path / "store", *FEW)
    done = run_process(*launch, "--mlflow-uri", team_server)
    assert done.returncode == 2
    assert "401" in done.stderr
    assert "Traceback" not in done.stderr


def test_records_of_another_store_are_written_there_once(team_server: str, account: None, tmp_path: Path) -> None:
    store = open_store(tmp_path)
    search, trials = concluded_search("brought", mlflow=team_server)
    write_folder(store, search, trials)
    records = list(trials.values())
    for _ in range(2):
        summary = summary_of(store, search, records)
        assert mirror(store, search, records, summary, interrupted_since=1090.0) == []
    tracker = open_tracker(store, team_server)
    runs = tracker._client.search_runs([tracker.experiment_id(search)])
    assert len(runs) == len(records)  # with the summary, and without the one that is PENDING
    [version] = tracker._client.search_model_versions("name = 'brought'")
    assert tracker._client.get_model_version_by_alias("brought", "best").version == version.version
    assert tracker.close() == []


def test_a_database_is_an_address_too(database: str, tmp_path: Path) -> None:
    store = open_store(tmp_path)
    search, trials = concluded_search("direct")
    address = f"{database.removesuffix('mlflow')}accounts"  # its tables are of other names
    assert mirror(store, search, [trials["FINISHED"]], None, uri=address) == []
    tracker = open_tracker(store, address)
    [run_id] = tracker.runs(search).values()
    assert history_of(tracker, run_id, "loss") == [(epoch, float(epoch)) for epoch in range(1, 5)]
    assert "QXZJ" not in tracker.address
    assert tracker.close() == []
