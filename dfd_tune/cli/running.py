"""The commands about a search that runs or ran: stop, logs; and how it stands, in a line.

Not for: what it found (searches.py).
"""

from __future__ import annotations

import codecs
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from dfd_tune.cli.cluster import cluster_options, logs_there, stop_there, target_for
from dfd_tune.cli.group import STORE_OPTION, FiniteRange, in_store
from dfd_tune.errors import UserError, unknown_name
from dfd_tune.signals import STOPPED

if TYPE_CHECKING:
    from dfd_tune.liveness import State
    from dfd_tune.record import SearchRecord, TrialRecord
    from dfd_tune.store import Store

POLL_SECONDS = 0.5
BUCKET_SECONDS = 5.0
"""Likewise of a log in a bucket, where it comes in larger pieces."""
LOGS_FOLDER = "logs"
RAY_LOG = "ray.log"


def how_it_stands(state: State, name: str, store_path: str) -> str:
    """Whether a search runs, in one line, and how to go on where it does not and is not finished."""
    line = f"Search '{name}': {state}"
    if state.kind == "running" or state.how == "finished":
        return f"{line}."
    if state.kind == "elsewhere":
        return f"{line}; to see what has come since: {in_store(f'dfd-tune fetch {name}', store_path)}"
    return f"{line}; to go on: {in_store(f'dfd-tune resume {name}', store_path)}"


@click.command()
@click.argument("name")
@click.option(
    "--wait",
    "patience",
    type=FiniteRange(0),
    default=60.0,
    show_default=True,
    help="Seconds to wait for its end; 0 only asks.",
)
@cluster_options
@STORE_OPTION
def stop(
    name: str,
    patience: float,
    cluster_file: str | None,
    address: str | None,
    cluster_store: str | None,
    store_path: str,
) -> None:
    """End the search NAME gracefully, from any host that sees its store or, with --cluster or --address, from afar.

    It ends as by Ctrl-C: what is finished is kept. Exit code 1 if it has not ended within --wait.
    """
    if cluster_file is not None or address is not None:
        sys.exit(stop_there(target_for(name, store_path, cluster_file, address, cluster_store), name, patience))
    from dfd_tune.liveness import state_of
    from dfd_tune.record import load_search
    from dfd_tune.store import existing_store

    store = existing_store(store_path)
    state = state_of(store, name) if Path(name).name == name else None
    if state is None or state.kind != "running":
        load_search(store, name)
        assert state is not None
        raise UserError(f"The search '{name}' does not run: it is {state}.")
    try:
        ended = _asked_until_ended(store, name, state, patience)
    except KeyboardInterrupt:
        click.echo(f"\nNot waiting any longer; '{name}' is ending all the same.", err=True)
        sys.exit(STOPPED)
    if ended is not None:
        click.echo(how_it_stands(ended, name, store_path))
    elif patience > 0:
        click.echo(
            f"The search '{name}' has not ended within {patience:g} s: {state.process} is still at it.", err=True
        )
        sys.exit(1)


def _asked_until_ended(store: Store, name: str, state: State, patience: float) -> State | None:
    """Ask a running search to stop, and wait; how it stands then, or None if it still runs."""
    from dfd_tune.liveness import ask_to_stop, state_of, stop_asked

    ask_to_stop(store, name)
    click.echo(f"Asked {state.process or 'the launch'} to stop '{name}'.")
    end = time.monotonic() + patience
    while time.monotonic() < end:
        time.sleep(min(POLL_SECONDS, patience))
        now = state_of(store, name)
        if now.kind != "running":
            return now
        if not stop_asked(store, name):
            # It was written while the launch, at its start, cleared away what older ones had left; or it is another's.
            ask_to_stop(store, name)
    return None


@click.command()
@click.argument("name")
@click.argument("trial", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on showing what is added, as long as the search runs.")
@cluster_options
@STORE_OPTION
def logs(
    name: str,
    trial: str | None,
    follow: bool,
    cluster_file: str | None,
    address: str | None,
    cluster_store: str | None,
    store_path: str,
) -> None:
    """Show what the trials of the search NAME printed, tracebacks included.

    With TRIAL, a trial's key or the beginning of one, that trial's output of all its attempts; without it, which
    trials have any, and where Ray's own log is. With --follow alone, on a cluster: how the search itself goes on.
    """
    if cluster_file is not None or address is not None:
        target = target_for(name, store_path, cluster_file, address, cluster_store)
        sys.exit(logs_there(target, name, trial, follow=follow))
    from dfd_tune.record import load_search
    from dfd_tune.store import existing_store

    store = existing_store(store_path)
    search = load_search(store, name)
    if trial is not None:
        _show(store, name, _log_of(store, search, trial), follow)
        return
    if follow:
        raise UserError("--follow shows one trial's output; name the trial, as `dfd-tune logs NAME TRIAL --follow`.")
    _list(store, search)


def _list(store: Store, search: SearchRecord) -> None:
    from dfd_tune.axes import explored_at
    from dfd_tune.record import describe_point
    from dfd_tune.report.formats import plain

    def point_of(trial: TrialRecord | None) -> str:
        return "" if trial is None else describe_point(trial.config, explored_at(trial.config, search.explored))

    folder = store.path("searches", search.search, LOGS_FOLDER)
    trials = _trials(store, search)
    known = [(key, trials.get(key)) for key in (*trials, *_keys_with_logs(folder)) if _log(folder, key).exists()]
    rows = [[key, point_of(trial), trial.status if trial else ""] for key, trial in dict(known).items()]
    click.echo(plain(["trial", "point", "status"], rows) if rows else "No trial of this search has a log.\n", nl=False)
    ray_log = folder / RAY_LOG
    click.echo(f"Ray's own output: {ray_log}" if ray_log.exists() else "Ray's own output: none yet")


def _log_of(store: Store, search: SearchRecord, trial: str) -> Path:
    """The log of the trial whose key begins so.

    Raises:
        UserError: there is no such trial or several, or it has no log.
    """
    folder = store.path("searches", search.search, LOGS_FOLDER)
    keys = sorted({*_trials(store, search), *search.planned, *_keys_with_logs(folder)})
    fitting = [trial] if trial in keys else [key for key in keys if trial and key.startswith(trial)]
    if len(fitting) > 1:
        raise UserError(
            f"'{trial}' is the beginning of {len(fitting)} trials' keys, as {', '.join(fitting[:3])}; give more."
        )
    if not fitting:
        raise UserError(f"In the search '{search.search}': " + unknown_name("trial", trial, keys))
    log = _log(folder, fitting[0])
    if not log.exists():
        raise UserError(f"The trial {fitting[0]} of '{search.search}' has no log; it has not run in this search.")
    return log


def _show(store: Store, name: str, log: Path, follow: bool) -> None:
    from dfd_tune.liveness import state_of
    from dfd_tune.store import BucketStore

    shown, decoder = 0, codecs.getincrementaldecoder("utf-8")(errors="replace")
    while True:
        # Asked before the last look, so that nothing which is written until the end is missed.
        runs = follow and state_of(store, name).kind == "running"
        store.bring("searches", name, LOGS_FOLDER, log.name)
        with log.open("rb") as file:  # anew, as another one may be in its place
            file.seek(shown)
            while content := file.read(1 << 16):
                shown += len(content)
                click.echo(decoder.decode(content), nl=False)
        if not runs:
            click.echo(decoder.decode(b"", final=True), nl=False)
            return
        time.sleep(BUCKET_SECONDS if isinstance(store, BucketStore) else POLL_SECONDS)


def _trials(store: Store, search: SearchRecord) -> dict[str, TrialRecord]:
    from dfd_tune.liveness import as_they_are, state_of
    from dfd_tune.record import load_trials

    trials = as_they_are(load_trials(store, search), state_of(store, search.search))
    return {trial.key: trial for trial in trials}


def _keys_with_logs(folder: Path) -> list[str]:
    return sorted(file.stem for file in folder.glob("[!.]*.log") if file.name != RAY_LOG)


def _log(folder: Path, key: str) -> Path:
    return folder / f"{key}.log"


COMMANDS = (stop, logs)
