"""The first second of a launch: its search is locked, Ray begins to start, and what takes long is imported meanwhile.

Imports no torch. Not for: what a launch does (launch.py).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING

from dfd_tune.disk import told_in_words
from dfd_tune.liveness import running
from dfd_tune.record import SearchRecord, known_search
from dfd_tune.search.options import LaunchOptions
from dfd_tune.search.runtime import RayRuntime
from dfd_tune.signals import Signals
from dfd_tune.store import BucketStore, Store, beating

if TYPE_CHECKING:
    from dfd_tune.search.launch import Outcome
    from dfd_tune.search.screen import Screen
    from dfd_tune.settings import Request

LOGS = "logs"
"""In a search's folder."""
LOG_SECONDS = 10.0
"""How often logs go to a bucket."""


def launch(request: Request, store: Store, options: LaunchOptions, screen: Screen, signals: Signals) -> Outcome:
    """Carry out a search, or what is left of it.

    On KeyboardInterrupt (Ctrl-C, SIGTERM, `stop`) finished trials are kept, running ones are recorded as KILLED, Ray is
    stopped, and the exception goes on.

    Raises:
        UserError: the request can't be carried out as it stands, a network that trials need can't be trained, or the
            store's disk is full or fails; what is finished is kept then.
    """
    log = store.path("searches", options.name, LOGS, "ray.log")
    with (
        told_in_words(),
        running(store, options.name, screen.line),
        _logs_sent(store, options.name),
        RayRuntime(log, signals) as ray,
    ):
        # Where a folder or a server is named, it may not be there: that is looked at first, and
        # said without delay; Ray is started when it is needed.
        named = options.mlflow_uri is not None or (request.dataset.data is not None and options.prepared is None)
        if not named and not _is_concluded(known_search(store, options.name)):
            ray.begin()
        from dfd_tune.search.launch import carry_out

        return carry_out(request, store, options, screen, ray)


@contextlib.contextmanager
def _logs_sent(store: Store, name: str) -> Iterator[None]:
    """In a bucket, the logs that this node has are there at the block's end, and now and then before."""
    if not isinstance(store, BucketStore):
        yield
        return

    def send(beat: int = 0) -> None:
        store.push("searches", name, LOGS)

    try:
        with beating(LOG_SECONDS, send):
            yield
    finally:
        with contextlib.suppress(OSError):  # nothing rests on them
            send()


def _is_concluded(search: SearchRecord | None) -> bool:
    """Whether a search came to its end before, so that its launch will hardly need Ray."""
    return search is not None and search.best is not None
