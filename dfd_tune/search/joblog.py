"""A job's own log: all that its process writes while it runs, in the search's folder.

Not for: what a job reports to the driver (process.py).
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import RawIOBase
from pathlib import Path

from dfd_tune.search.jobs import Attempt
from dfd_tune.store import Store


@contextmanager
def job_log(store: Store, search: str, attempt: Attempt) -> Iterator[None]:
    """All that this process writes goes to the job's own log in the search's folder while the block lasts.

    A log that can't be written, as on a full disk, is done without: whoever needs the disk says what is wrong with it.
    """
    parts = ("searches", search, "logs", _name(attempt))
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    with contextlib.suppress(OSError):  # what it printed before is no reason not to run it
        store.bring(*parts)
    with _opened(store.path(*parts)) as log:
        with contextlib.suppress(OSError):
            head = f"--- {now} attempt {attempt.number} on {socket.gethostname()}, process {os.getpid()}\n"
            log.write(head.encode())
        _flush()
        kept = [os.dup(number) for number in (1, 2)]
        try:
            for number in (1, 2):
                os.dup2(log.fileno(), number)
            yield
        finally:
            _flush()
            for number, original in zip((1, 2), kept, strict=True):
                os.dup2(original, number)
                os.close(original)
            with contextlib.suppress(OSError):
                store.push(*parts)


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
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{line}\n")


def _name(attempt: Attempt) -> str:
    job = attempt.job
    return f"{job.key}.log" if job.kind == "trial" else f"{job.kind}-{job.key}.log"


def _opened(file: Path) -> RawIOBase:
    """A job's log, open to append to; of one that can't be opened, one that swallows all."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return file.open("ab", buffering=0)
    except OSError:
        return open(os.devnull, "ab", buffering=0)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
