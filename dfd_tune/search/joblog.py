"""A job's own log: all that its process writes while it runs, in the search's folder.

Not for: what a job reports to the driver (process.py).
"""

from __future__ import annotations

import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from dfd_tune.search.jobs import Attempt
from dfd_tune.store import Store


@contextmanager
def job_log(store: Store, search: str, attempt: Attempt) -> Iterator[None]:
    """All that this process writes goes to the job's own log in the search's folder while the block lasts."""
    folder = store.path("searches", search, "logs")
    folder.mkdir(parents=True, exist_ok=True)
    job = attempt.job
    name = f"{job.key}.log" if job.kind == "trial" else f"{job.kind}-{job.key}.log"
    with suppress(OSError):  # what it printed before is no reason not to run it
        store.bring("searches", search, "logs", name)
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    with (folder / name).open("ab", buffering=0) as log:
        log.write(f"--- {now} attempt {attempt.number} on {socket.gethostname()}, process {os.getpid()}\n".encode())
        sys.stdout.flush()
        sys.stderr.flush()
        kept = [os.dup(number) for number in (1, 2)]
        try:
            for number in (1, 2):
                os.dup2(log.fileno(), number)
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, original in zip((1, 2), kept, strict=True):
                os.dup2(original, number)
                os.close(original)
            with suppress(OSError):
                store.push("searches", search, "logs", name)


@contextmanager
def warnings_told(report: Callable[..., None]) -> Iterator[None]:
    """What this program warns of, as on whom it waits, reaches who looks at the launch, not the job's log alone."""
    logger, handler = logging.getLogger("dfd_tune"), _Telling(report)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Telling(logging.Handler):
    """Hands warnings on as reports."""

    def __init__(self, report: Callable[..., None]):
        super().__init__(logging.WARNING)
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a warning on."""
        note(record.getMessage())
        self._report(warning=record.getMessage())


def note(line: str) -> None:
    """Write a line to the job's log."""
    sys.stderr.write(f"{line}\n")
