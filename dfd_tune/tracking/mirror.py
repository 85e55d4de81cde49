"""MLflow as a view of the store: a search's records, report and best student written there, as far as they are not.

So a search that ran elsewhere and was brought into this store is seen in MLflow as if it had run here. Not for: a
search that runs, whose launch is the one writer; nor for choosing anything (search/conclude.py).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

from dfd_tune.errors import UserError
from dfd_tune.record import SearchRecord, TrialRecord
from dfd_tune.store import Store
from dfd_tune.tracking.connection import Connection, connect, resolve_address
from dfd_tune.tracking.interrupted import mark_interrupted
from dfd_tune.tracking.summary import Summary
from dfd_tune.tracking.tracker import Tracker

MANY_RUNS = 50
"""Of so many, MLflow's database takes some seconds, which are announced."""


def mirror(
    store: Store,
    search: SearchRecord,
    trials: Sequence[TrialRecord],
    summary: Summary | None,
    *,
    uri: str | None = None,
    interrupted_since: float | None = None,
    runs_elsewhere: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> list[str]:
    """Write into MLflow what it does not have yet of a search that does not run; nothing is doubled.

    Times are those of the records. A trial that its record calls RUNNING becomes a run that is KILLED, and that says
    in the tag `dfd.state` since when nobody runs it.

    Args:
        store: which holds the search.
        search: its record.
        trials: the records of its trials.
        summary: what came of it, from its folder; None as long as there is nothing.
        uri: where MLflow is; None for where the search was recorded.
        interrupted_since: when the search was last alive, in seconds since 1970, if it ended without a word.
        runs_elsewhere: whether it ran on in another store when it was brought here; what is RUNNING stays so.
        say: is told if this takes long.

    Returns:
        What MLflow did not take, in sentences.
    """
    last = max((trial.ended for trial in trials if trial.ended is not None), default=None)
    since = time.time() if last is None else last
    gone = since if interrupted_since is None else interrupted_since
    shown = [
        dataclasses.replace(trial, status="INTERRUPTED", ended=gone)
        if trial.status == "RUNNING" and not runs_elsewhere
        else trial
        for trial in trials
    ]
    uri = search.mlflow if uri is None else uri
    try:
        with store.node_lease(f"mirror-{search.search}"):
            address = resolve_address(store, uri)
            tracker = Tracker(Connection(lambda: connect(store, address)), address, store, lambda: since, patience=0)
            problems = _write(tracker, search, shown, summary, say)
            if not runs_elsewhere:
                mark_interrupted(store, search, shown, gone, uri=uri)
    except UserError as error:
        return list(error.problems)
    return problems


def _write(
    tracker: Tracker,
    search: SearchRecord,
    trials: Sequence[TrialRecord],
    summary: Summary | None,
    say: Callable[[str], None],
) -> list[str]:
    try:
        there = tracker.runs(search)
        missing = sum(trial.key not in there and trial.status != "PENDING" for trial in trials)
        if missing >= MANY_RUNS:
            say(f"MLflow gets {missing} runs of '{search.search}' that it does not have yet.")
        problems = tracker.sync(search, trials)
        if summary is not None:
            tracker.conclude(search, trials, summary)
    except UserError as error:
        tracker.close(patience=0)
        return list(error.problems)
    return problems + [line for line in tracker.close() if line not in problems]
