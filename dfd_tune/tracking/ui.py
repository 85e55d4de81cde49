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
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from dfd_tune.errors import UserError
from dfd_tune.record import SearchRecord, load_search, load_trials
from dfd_tune.store import Store
from dfd_tune.tracking.address import Address, read_address
from dfd_tune.tracking.connection import (
    artifact_root,
    connect,
    import_mlflow_quietly,
    prepare_database,
    refusals_as_user_errors,
    resolve_address,
)
from dfd_tune.tracking.experiments import SEARCH_TAG, experiment_name, find_experiment, home_of
from dfd_tune.tracking.interrupted import mark_interrupted
from dfd_tune.tracking.runs import KIND_TAG
from dfd_tune.tracking.view import TRAINING, columns_of, run_url, runs_url, show_view

if TYPE_CHECKING:
    from mlflow import MlflowClient

START_SECONDS = 120.0
"""How long the server may take to answer. It takes about 10 s on two cores."""

_HOST = "127.0.0.1"
_PORTS_TRIED = 50
_COMPARED = 100
"""So many trials the comparison page takes; an address of more is longer than browsers and terminals bear."""


def compare_url(base_url: str, experiment_id: str, run_ids: Sequence[str]) -> str:
    """The page of an MLflow server that compares runs of one experiment."""
    runs = quote(json.dumps(list(run_ids), separators=(",", ":")))
    experiments = quote(json.dumps([experiment_id]))
    return f"{base_url.rstrip('/')}/#/compare-runs?runs={runs}&experiments={experiments}&{TRAINING}"


def serve_ui(
    store: Store,
    port: int,
    say: Callable[[str], None],
    *,
    search: str | None = None,
    uri: str | None = None,
    interrupted_since: float | None = None,
    fill: Callable[[], None] | None = None,
) -> None:
    """Serve the store's MLflow pages on this machine until Ctrl-C or SIGTERM; then return.

    Of a search that was recorded at a server, its pages there are named instead, and nothing is served.

    Args:
        store: whose database and artifacts are shown.
        port: the port wanted; if it is taken, the next free one is used.
        say: is told the address once it answers, and the pages of `search` if it has runs.
        search: name of a search, which is shown where it was recorded.
        uri: where MLflow is, if not there; with user and password, which no record keeps.
        interrupted_since: when the search was last alive, in seconds since 1970, if it ended without a word; None if it
            runs or has ended as it should.
        fill: is called while the server starts, to write into the store's own database what its pages shall show.

    Raises:
        UserError: there is no such search; no port is free; the server does not start, ends by itself, or refuses.
    """
    record = None if search is None else load_search(store, search)
    with _naming_the_search(record, uri):
        address = resolve_address(store, _where(record, uri))
        if record is not None and interrupted_since is not None:
            mark_interrupted(store, record, load_trials(store, record), interrupted_since, uri=uri)
        if address.is_server:
            client = connect(store, address)
            say(f"MLflow: {address} (a server; nothing is started here)")
            _say_pages(client, address, store, record, say)
            return
        with store.node_lease("mlflow"), refusals_as_user_errors(address, "can't be shown"):
            if not (address.own and store.path("mlflow.db").exists()):
                prepare_database(store, address)
    url = f"http://{_HOST}:{free_port(port)}"
    with _ends_on_signals(), _server(store, address, url) as (process, log):
        import_mlflow_quietly()  # takes seconds, in which the server starts
        if fill is not None and address.own:
            fill()
        _wait_until_it_answers(process, url, log, address)
        say(f"MLflow: {url} (Ctrl-C ends it)")
        if record is not None:
            here = read_address(store, url)
            _say_pages(connect(store, here), here, store, record, say)
        process.wait()
        raise UserError(f"The MLflow server at {url} ended by itself: {_last_lines(log, address)}.")


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
def _server(store: Store, address: Address, url: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """The server in a process group of its own, which is gone when the block ends."""
    command = [sys.executable, "-m", "mlflow", "server", "--host", _HOST, "--port", url.rsplit(":", 1)[1]]
    command += ["--artifacts-destination", artifact_root(store), "--workers", "1"]
    settings = {
        # Not on the command line, which everybody on the machine can read.
        "MLFLOW_BACKEND_STORE_URI": address.uri,
        # Without this the server starts eight job runners of 230 MB each, for features not used here.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        # It has no need to load a model; should it, nothing in one is unpickled.
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    }
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "server.log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=store.root,
                env={**os.environ, **settings},
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


def _wait_until_it_answers(process: subprocess.Popen[bytes], url: str, log: Path, address: Address) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if process.poll() is not None:
            raise UserError(f"The MLflow server did not start: {_last_lines(log, address)}.")
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/health", timeout=5):
            return
        time.sleep(0.2)
    raise UserError(f"No MLflow server answered at {url} within {START_SECONDS:g} s: {_last_lines(log, address)}.")


@contextlib.contextmanager
def _naming_the_search(record: SearchRecord | None, uri: str | None) -> Iterator[None]:
    """If the address that a search was recorded at will not do, say whose it is and how to give another."""
    try:
        yield
    except UserError as error:
        if record is None or record.mlflow is None or uri is not None:
            raise
        hint = (
            f"The search '{record.search}' was recorded there; if a user and a password are needed, give the address "
            "with them as --mlflow-uri, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD for a server."
        )
        raise UserError(*error.problems, hint) from None


def _where(search: SearchRecord | None, uri: str | None) -> str | None:
    return search.mlflow if uri is None and search is not None else uri


def _say_pages(
    client: MlflowClient, address: Address, store: Store, search: SearchRecord | None, say: Callable[[str], None]
) -> None:
    """Name the pages of a search's runs, of their comparison, and of its summary, if MLflow has any."""
    if search is None:
        return
    with refusals_as_user_errors(address, "can't be read"):
        experiment = find_experiment(client, experiment_name(search), home_of(search, store))
        if experiment is None:
            return
        number = experiment.experiment_id
        view = show_view(client, experiment, columns_of(search), search.criterion)
        ours = f"tags.`{SEARCH_TAG}` = '{search.search}' AND tags.`{KIND_TAG}`"
        by = search.criterion
        best_first = [f"metrics.{by.column} {'DESC' if by.larger_is_better else 'ASC'}"]
        trials = client.search_runs([number], f"{ours} = 'trial'", max_results=_COMPARED, order_by=best_first)
        summaries = client.search_runs([number], f"{ours} = 'summary'", max_results=1)
    if trials:
        say(f"Runs of '{search.search}': {runs_url(str(address), number, view=view)}")
        ids = [run.info.run_id for run in trials]
        say(f"Its trials side by side: {compare_url(str(address), number, ids)}")
    for run in summaries:
        say(f"Its report and best student: {run_url(str(address), number, run.info.run_id)}")


def _last_lines(log: Path, address: Address) -> str:
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    text = " / ".join(lines[-3:]).rstrip(".") or "it said nothing"
    return address.scrubbed(text) or "what it said holds the password"
