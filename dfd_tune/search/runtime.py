"""Ray, started quietly on this machine or joined on a cluster, and left without leaving a process.

Not for: what runs on it (driver.py), or how much of it is used (capacity.py).
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import socket
import sys
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Self, TextIO

from dfd_tune.errors import UserError, cause_of
from dfd_tune.machine import usable_cores
from dfd_tune.signals import Signals

ANSWER_SECONDS = 10.0
"""How long a cluster may take to accept a connection."""
TOO_SLOW = "timed out during startup"
"""In Ray's own words, of a node that did not get ready in time."""
OBJECT_STORE_BYTES = 100_000_000
"""Results and configurations only: images and features are memory-mapped files."""


class RayRuntime:
    """Ray on this machine, or on the cluster that RAY_ADDRESS names: started when it is needed, stopped at the end.

    Args:
        log_file: takes what Ray and Tune have to say; nothing of it goes to the terminal.
        signals: put back in place once Ray has put its own handlers there.
    """

    def __init__(self, log_file: Path, signals: Signals):
        self.signals = signals
        self._log_file = log_file
        self._address = os.environ.get("RAY_ADDRESS")
        self._ready: Future[None] | None = None
        """Of the thread that Ray lives in; None before that is started."""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._live, name="ray_runtime", daemon=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        self._over.set()
        # Nobody else goes on meanwhile: where a reference of Ray's is dropped while it stops, it ends the process.
        if self._ready is not None:
            self._thread.join()
        with contextlib.suppress(OSError):
            if kind is not None and self._log_file.stat().st_size == 0:  # a launch that is refused leaves no trace
                self._log_file.unlink()
                self._log_file.parent.rmdir()

    @property
    def on_cluster(self) -> bool:
        """Whether Ray is a cluster that was there before."""
        return bool(self._address)

    def begin(self) -> None:
        """Start a Ray of this machine's while the caller goes on; `start` waits for it. A cluster is left alone."""
        if not self.on_cluster:
            self._begin()

    def start(self) -> None:
        """Start or join Ray, and wait until it is there.

        Raises:
            UserError: RAY_ADDRESS names a cluster that does not answer, or refuses.
        """
        self._begin().result()
        if threading.current_thread() is threading.main_thread():
            self.signals.install()

    def _begin(self) -> Future[None]:
        if self._ready is None:
            self._ready = Future()
            self._thread.start()
        return self._ready

    def _live(self) -> None:
        """From Ray's start to its end. Linux ends Ray's processes with the thread that started them; and what Ray
        writes goes to the log by this thread's name."""
        assert self._ready is not None
        with contextlib.ExitStack() as stack:
            try:
                self._start(stack)
            except BaseException as error:
                self._ready.set_exception(error)
                return
            self._ready.set_result(None)
            self._over.wait()

    def _start(self, stack: contextlib.ExitStack) -> None:
        if self._address:
            refuse_client_address(self._address)
            refuse_where_nobody_answers(self._address)
        _quiet_environment()
        if not self._address:
            # Ray's switch for machines that are no cluster, read when it is imported: it then takes 127.0.0.1 for its
            # address, and listens there alone.
            os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
            # Else Ray starts a process a core with itself, none of which Tune takes: its own have other variables.
            os.environ.setdefault("RAY_prestart_worker_first_driver", "0")
        import ray

        stack.enter_context(_logged_to(self._log_file))
        try:
            self._init()
        except (ConnectionError, RuntimeError, ValueError, ray.exceptions.RayError) as error:
            if not self._address:
                raise
            raise UserError(why_not_connected(self._address, error)) from None
        except Exception as error:  # Ray has no type of its own for this
            if TOO_SLOW not in str(error):
                raise
            raise UserError(
                "Ray did not start within the half minute that it gives itself: this machine is too busy, or short of "
                "memory. Launch again once it is less so; nothing is lost."
            ) from None
        stack.callback(ray.shutdown)
        _log_to_file(self._log_file)

    def _init(self) -> None:
        import ray

        quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
        if self._address:
            ray.init(address=self._address, **quiet)
        else:
            ray.init(
                num_cpus=usable_cores(),
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                **quiet,
            )

    def may_grow(self) -> bool:
        """Whether the cluster has an autoscaler, so that nodes may come that are not like those that are there."""
        return self.on_cluster and may_grow()


def may_grow() -> bool:
    """Whether the Ray cluster that this process is connected to has an autoscaler of nodes."""
    from ray._private.state import state
    from ray.experimental.internal_kv import _internal_kv_get

    config = state.get_cluster_config()  # of Ray's second autoscaler
    if config is not None and len(config.node_group_configs) > 0:
        return True
    status = json.loads(_internal_kv_get(b"__autoscaling_status") or "{}")  # of its first
    kinds = status.get("autoscaler_report", {}).get("active_nodes", {})
    # Without an autoscaler, the monitor calls each node a kind of its own, by its id.
    return any(not kind.startswith("node_") for kind in kinds)


def refuse_where_nobody_answers(address: str) -> None:
    """Ask whether anybody listens at HOST:PORT; Ray itself would ask for minutes.

    Raises:
        UserError: nobody does.
    """
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal():
        return  # as `auto`, which Ray looks up
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_SECONDS):
            return
    except (OSError, OverflowError) as error:
        raise UserError(_no_answer(address, cause_of(error))) from None


def refuse_client_address(address: str) -> None:
    """Refuse addresses of Ray Client, which Tune and Train do not work through.

    Raises:
        UserError: it is one.
    """
    if address.startswith("ray://"):
        raise UserError(
            f"RAY_ADDRESS is '{address}', but a search can't be driven through Ray Client; run the launch on a "
            "machine of the cluster with RAY_ADDRESS=HOST:6379 or RAY_ADDRESS=auto."
        )


def why_not_connected(address: str, error: BaseException) -> str:
    """A sentence for a Ray cluster that could not be joined: no answer, a token, or another version."""
    text = " ".join(str(error).split())
    low = "".join(traceback.format_exception(error)).lower()  # the reason stands in the errors that led to this one
    if "authenticationerror" in low or "unauthenticated" in low or "invalidauthtoken" in low:
        return (
            f"The Ray cluster at RAY_ADDRESS '{address}' refuses this process: its token is missing or wrong; "
            "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH to the cluster's token."
        )
    if "version mismatch" in low or "python version" in low:
        return (
            f"The Ray cluster at RAY_ADDRESS '{address}' runs other versions than this process ({text[:200]}); install "
            "the same Ray and Python on both."
        )
    return _no_answer(address, text[:200] or type(error).__name__)


def _no_answer(address: str, why: str) -> str:
    return (
        f"RAY_ADDRESS is '{address}', but no Ray cluster answers there ({why}); start it, or unset RAY_ADDRESS to run "
        "on this machine."
    )


_LOUD = ("ray", "ray.tune", "ray.train", "ray.data", "ray.util")


def _log_to_file(log_file: Path) -> None:
    """Send the loggers of Ray's libraries, which are set up when Ray starts, to a file alone."""
    handler = logging.FileHandler(log_file, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in _LOUD:
        logger = logging.getLogger(name)
        for old in list(logger.handlers):
            logger.removeHandler(old)
        logger.propagate = False
        logger.setLevel(logging.WARNING)
        logger.addHandler(handler)


@contextlib.contextmanager
def _logged_to(log_file: Path) -> Iterator[None]:
    """What Ray writes to this process's standard streams goes to a file: from below Python, and from its own threads.

    What other threads write there is meant for a person, and still reaches one.
    """
    log_file.parent.mkdir(parents=True, exist_ok=True)
    sys.stderr.flush()
    below, shown = os.dup(2), (sys.stdout, sys.stderr)
    terminal = os.fdopen(os.dup(2), "w", buffering=1, encoding="utf-8", errors="replace")
    with log_file.open("a", buffering=1, encoding="utf-8", errors="replace") as log:
        os.dup2(log.fileno(), 2)
        sys.stdout, sys.stderr = _WithoutRay(shown[0], log), _WithoutRay(terminal, log)
        try:
            yield
        finally:
            sys.stdout, sys.stderr = shown
            os.dup2(below, 2)
            os.close(below)
            terminal.close()


class _WithoutRay(io.TextIOBase):
    """A stream of which Ray's own threads, known by their names, write to a log instead."""

    def __init__(self, stream: TextIO, log: TextIO):
        self._original = stream
        self._log = log

    def _stream(self) -> TextIO:
        return self._log if threading.current_thread().name.startswith("ray_") else self._original

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """Of the stream."""
        return self._original.encoding

    def write(self, text: str) -> int:
        """Write to the thread's stream."""
        with contextlib.suppress(ValueError):  # a thread of Ray's may outlive the log
            self._stream().write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the thread's stream."""
        with contextlib.suppress(ValueError):
            self._stream().flush()

    def fileno(self) -> int:
        """Of the stream."""
        return self._original.fileno()

    def isatty(self) -> bool:
        """Of the stream."""
        return self._original.isatty()


def _quiet_environment() -> None:
    """What Ray reads from the environment when it is imported or started; a value already set is respected."""
    for name, value in {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # Under `uv run`, Ray would set up the project anew for every worker.
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
        "RAY_TRAIN_METRICS_ENABLED": "0",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        # Ctrl-C is ours: records are closed first, then Ray is stopped.
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        # The store is what a search resumes from; Tune's own snapshots would only be written and thrown away.
        "TUNE_GLOBAL_CHECKPOINT_S": "1000000000",
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
        # How many jobs run at once is bounded by our searcher, by the cluster as it is at that moment.
        "TUNE_MAX_PENDING_TRIALS_PG": "1000",
        "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
        "TUNE_PRINT_ALL_TRIAL_ERRORS": "0",
    }.items():
        os.environ.setdefault(name, value)
    for name in _LOUD:
        logging.getLogger(name).setLevel(logging.ERROR)
