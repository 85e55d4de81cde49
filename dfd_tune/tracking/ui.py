"""The MLflow server of a store, as a child process, and the addresses of its pages.

Not for: a server for many users; that one is started by its administrator and given by address.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from dfd_tune.errors import UserError
from dfd_tune.store import Store
from dfd_tune.tracking.connection import prepare_database, refusals_as_user_errors, resolve_address

START_SECONDS = 120.0
"""How long the server may take to answer. It takes about 10 s on two cores."""

_HOST = "127.0.0.1"
_PORTS_TRIED = 50


def compare_url(base_url: str, experiment_id: str, run_ids: Sequence[str]) -> str:
    """The page of an MLflow server that compares runs of one experiment."""
    runs = quote(json.dumps(list(run_ids), separators=(",", ":")))
    experiments = quote(json.dumps([experiment_id]))
    return f"{base_url.rstrip('/')}/#/compare-runs?runs={runs}&experiments={experiments}"


def serve_ui(store: Store, port: int, say: Callable[[str], None], *, search: str | None = None) -> None:
    """Serve the store's MLflow pages on this machine until Ctrl-C or SIGTERM; then return.

    Args:
        store: whose database and artifacts are shown.
        port: the port wanted; if it is taken, the next free one is used.
        say: is told the address once it answers, and the pages of `search` if it has runs.
        search: name of a search.

    Raises:
        UserError: no port is free, or the server does not start or ends by itself.
    """
    address = resolve_address(store, None)
    with store.lease("mlflow"), refusals_as_user_errors(address, "can't be shown"):
        if not store.path("mlflow.db").exists():
            prepare_database(store, address)
    url = f"http://{_HOST}:{free_port(port)}"
    with _ends_on_signals(), _server(store, address, url) as (process, log):
        _wait_until_it_answers(process, url, log)
        say(f"MLflow: {url} (Ctrl-C ends it)")
        if search is not None and (pages := _pages(url, search)):
            say(f"Runs of '{search}': {pages[0]}")
            say(f"Its trials side by side: {pages[1]}")
        process.wait()
        raise UserError(f"The MLflow server at {url} ended by itself: {_last_lines(log)}.")


def free_port(port: int) -> int:
    """The first free port from `port` on.

    Raises:
        UserError: 50 ports in a row are taken, or there is no such port.
    """
    for candidate in range(port, port + _PORTS_TRIED):
        if not 0 < candidate < 65536:
            raise UserError(f"The port is {port}, but must be from 1 to 65535.")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with contextlib.suppress(OSError):
                probe.bind((_HOST, candidate))
                return candidate
    raise UserError(f"The ports {port} to {port + _PORTS_TRIED - 1} are all taken; name another.")


@contextlib.contextmanager
def _server(store: Store, address: str, url: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The server in a process group of its own, which is gone when the block ends."""
    artifacts = store.path("mlflow_artifacts").as_uri()
    command = [sys.executable, "-m", "mlflow", "server", "--host", _HOST, "--port", url.rsplit(":", 1)[1]]
    command += ["--backend-store-uri", address, "--artifacts-destination", artifacts, "--workers", "1"]
    # Without this setting the server starts eight job runners of 230 MB each, for features not used here.
    switched_off = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "MLFLOW_DISABLE_TELEMETRY": "true"}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "server.log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=store.root,
                env={**os.environ, **switched_off},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            yield process, log
        finally:
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    for attempt in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, attempt)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=10)
    # Both signals go out even if the first ended the server itself: its workers may be slower than it.


@contextlib.contextmanager
def _ends_on_signals() -> Iterator[None]:
    """Leave the block, without an error, on Ctrl-C or SIGTERM."""
    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if in_main else None
    try:
        yield
    except KeyboardInterrupt:
        pass
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)


def _wait_until_it_answers(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise UserError(f"The MLflow server did not start: {_last_lines(log)}.")
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
            return
        time.sleep(0.2)
    raise UserError(f"No MLflow server answered at {url} within {START_SECONDS:g} s: {_last_lines(log)}.")


def _pages(url: str, search: str) -> tuple[str, str] | None:
    """The pages of a search's runs and of their comparison, asked for over HTTP; None if MLflow has no such trials."""
    try:
        found = _ask(f"{url}/api/2.0/mlflow/experiments/get-by-name?experiment_name={quote(search)}")
        experiment_id = found["experiment"]["experiment_id"]
        query = {"experiment_ids": [experiment_id], "filter": "tags.`dfd.kind` = 'trial'", "max_results": 500}
        runs = _ask(f"{url}/api/2.0/mlflow/runs/search", query).get("runs", [])
    except urllib.error.HTTPError:
        return None
    if not runs:
        return None
    listing = f"{url}/#/experiments/{experiment_id}/runs"
    return listing, compare_url(url, experiment_id, [run["info"]["run_id"] for run in runs])


def _ask(url: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        value = json.load(answer)
    assert isinstance(value, dict), url
    return value


def _last_lines(log: Path) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return " / ".join(lines[-3:]).rstrip(".") or "it said nothing"
