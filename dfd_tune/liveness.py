"""Who runs a search, told truly also after a kill, and how a running one is asked to stop from elsewhere.

A launch holds a lock on its search, which the operating system takes from it when it dies, and keeps
`searches/NAME/run.json`: who it is, a heartbeat, and how it ended. Whether a search runs is asked of the lock alone, so
that clocks of several hosts need not agree. Not for: how its trials fare (record.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dfd_tune.errors import UserError
from dfd_tune.locks import HeldError, Holder, NoLocksError, Say, holder_of, is_held, when
from dfd_tune.machine import Process, this_process
from dfd_tune.record import TrialRecord, lock_of
from dfd_tune.store import BucketStore, FolderStore, Store, is_passing

Clock = Callable[[], float]
How = Literal["finished", "stopped", "failed"]

BEAT_SECONDS = 5.0
PATIENCE_SECONDS = 1.0
"""Who only asks whether a search runs holds its lock for a moment; a launch asks again for this long."""
UPKEEP = "upkeep"
"""The lock under which what nobody needs is removed from a store. A launch that begins waits for it, so who holds it
sees every launch that may look at what is there."""
SILENT_SECONDS = 60.0
"""Where there are no locks to ask, a search without a heartbeat for so long counts as interrupted."""


@dataclass(frozen=True)
class State:
    """Whether a search runs. Times are seconds since 1970 by the clock of the host that ran it."""

    kind: Literal["running", "interrupted", "ended", "never", "elsewhere"]
    """interrupted: its process died without a word. elsewhere: it ran on in another store when it was brought here."""
    how: How | None = None
    """How it ended: all was done, it was stopped, or by an error."""
    since: float | None = None
    """When it began, was last heard of, was brought here, or ended; None if that is not known."""
    process: Process | None = None
    """Who runs it or ran it last."""

    def as_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> State:
        """What `as_json` gave `value` for."""
        process = value["process"]
        return cls(**{**value, "process": None if process is None else Process(**process)})

    def __str__(self) -> str:
        who = "" if self.process is None else f" ({self.process})"
        at = "" if self.since is None else f" {when(self.since)}"
        if self.kind == "running":
            return f"RUNNING{' since' if at else ''}{at}{who}"
        if self.kind == "interrupted":
            return f"INTERRUPTED, last heard of{at}{who}"
        if self.kind == "elsewhere":
            return f"RUNNING elsewhere when it was brought here{at}{who}"
        if self.kind == "never":
            return "not running; nothing is known of a launch"
        words = {"finished": "finished", "stopped": "stopped", "failed": "ended by an error", None: "ended"}
        return f"{words[self.how]}{at}{who}"


@contextlib.contextmanager
def running(
    store: Store, name: str, say: Say, *, clock: Clock = time.time, beat_seconds: float = BEAT_SECONDS
) -> Iterator[None]:
    """For the length of the block, this process is the one that runs the search `name`.

    A KeyboardInterrupt that leaves the block means that it was stopped, another exception that it failed. A launch that
    ends so before it has written the search's record, as one that is refused, leaves no trace.

    Args:
        store: where the search is, or will be.
        name: of the search.
        say: is told if the launch before this one was interrupted.
        clock: seconds since 1970.
        beat_seconds: time between heartbeats.

    Raises:
        UserError: another process runs it, or the store's folder has no locks.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(store.claim(lock_of(name), PATIENCE_SECONDS, say))
        except HeldError as error:
            raise UserError(
                f"The search '{name}' is being run already, by {error.holder or 'another launch'}; wait for it, end it "
                f"with `dfd-tune stop {name}`, or give this one another --name."
            ) from None
        store.wait_for(UPKEEP, say)
        store.pull("searches", name)
        store.remove(*_stop_parts(name))
        before = _read(store, name)
        if before is not None and before.ended is None:
            say(f"The last launch of '{name}' was interrupted, last heard of {when(before.heartbeat)}; going on.")
        yield from _beating(store, name, clock, beat_seconds)


def _beating(store: Store, name: str, clock: Clock, beat_seconds: float) -> Iterator[None]:
    now = clock()
    before, untouched = _read(store, name), _print_of_search(store, name)
    run = _Run(this_process(), started=now, heartbeat=now)
    store.write_json(run.as_json(), *_run_parts(name))
    over = threading.Event()

    def beat() -> None:
        while not over.wait(beat_seconds):
            with contextlib.suppress(OSError):  # a missed heartbeat does no harm: the lock tells who lives
                if store.path("searches", name).is_dir():
                    store.write_json(dataclasses.replace(run, heartbeat=clock()).as_json(), *_run_parts(name))

    thread = threading.Thread(target=beat, name=f"heartbeat of {name}", daemon=True)
    thread.start()
    how: How = "failed"
    try:
        yield
        how = "finished"
    except KeyboardInterrupt:
        how = "stopped"
        raise
    finally:
        over.set()
        thread.join()
        if how != "finished" and _print_of_search(store, name) == untouched:
            _leave_no_trace(store, name, before)
        else:
            _leave(store, name, dataclasses.replace(run, heartbeat=clock(), ended=clock(), how=how))


@contextlib.contextmanager
def at_rest(store: Store, name: str) -> Iterator[None]:
    """For the length of the block, nobody runs the search `name`.

    Raises:
        UserError: somebody does, or the store's folder has no locks.
    """
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(store.claim(lock_of(name), PATIENCE_SECONDS))
        except HeldError as error:
            raise UserError(
                f"The search '{name}' is being run, by {error.holder or 'another launch'}; end it with "
                f"`dfd-tune stop {name}` first."
            ) from None
        yield


def state_of(store: Store, name: str, *, clock: Clock = time.time) -> State:
    """Whether the search `name` runs, and since when; also if its process was killed.

    Args:
        store: where the search is.
        name: of the search.
        clock: seconds since 1970; of use only where there are no locks to ask, as of a bucket's search elsewhere.
    """
    lock = store.lock_file(lock_of(name))
    while True:
        run = _read(store, name)
        lives = run is not None and run.ended is None and clock() - run.heartbeat < SILENT_SECONDS
        try:
            here = is_held(lock)
            held = here or (lives and isinstance(store, BucketStore))
        except (NoLocksError, PermissionError):
            here, held = isinstance(store, FolderStore), lives
        if held:
            return _running_state(holder_of(lock) if here else None, run)
        # What was read is of the moment before the lock was asked for. If a run began or ended since, both are of
        # different moments.
        again = _read(store, name)
        if (run and run.identity) == (again and again.identity):
            break
    if run is None:
        return State("never")
    if run.fetched is not None:
        return State("elsewhere", None, run.fetched, run.process)
    if run.ended is None:
        return State("interrupted", None, run.heartbeat, run.process)
    return State("ended", run.how, run.ended, run.process)


def runs_on_another_node(store: Store, name: str, state: State) -> bool:
    """Whether the search runs where this node's files of it are not those that its launch writes."""
    afar = state.kind == "running" and isinstance(store, BucketStore)
    return afar and not is_held(store.lock_file(lock_of(name)))


def as_they_are(trials: Sequence[TrialRecord], state: State) -> list[TrialRecord]:
    """The trials with the truth about those whose record says RUNNING where nobody runs the search: INTERRUPTED."""
    if state.kind in ("running", "elsewhere"):
        return list(trials)
    return [
        dataclasses.replace(trial, status="INTERRUPTED") if trial.status == "RUNNING" else trial for trial in trials
    ]


def note_running_elsewhere(store: Store, name: str, *, clock: Clock = time.time) -> None:
    """Of a search that was just brought here from another store, where it runs on."""
    run = _read(store, name)
    if run is not None:
        store.write_json(dataclasses.replace(run, fetched=clock()).as_json(), *_run_parts(name))


def ask_to_stop(store: Store, name: str) -> None:
    """Have whoever runs the search end it gracefully; they look about once a second. May be repeated."""
    store.write_json(dataclasses.asdict(this_process()) | {"asked": time.time()}, *_stop_parts(name))


def stop_asked(store: Store, name: str) -> bool:
    """Whether somebody asked for an end of the search; for whoever runs it."""
    # A client of NFS may remember for a minute that a file is not there, but not in a folder that it writes to itself,
    # as the heartbeat does.
    return store.there(*_stop_parts(name))


def who_asked(store: Store, name: str) -> str:
    """Who asked for the end of the search, in a few words."""
    try:
        value = store.read_json(*_stop_parts(name)) or {}
        return str(Process(value["host"], value["pid"], value["user"], None))
    except (OSError, ValueError, KeyError):
        return "another process"


@dataclass(frozen=True)
class _Run:
    """The content of run.json."""

    process: Process
    started: float
    heartbeat: float
    ended: float | None = None
    how: How | None = None
    fetched: float | None = None
    """When the search was brought here from another store, where it ran on."""

    @property
    def identity(self) -> tuple[Any, ...]:
        """All but the heartbeat."""
        return self.process, self.started, self.ended, self.how

    def as_json(self) -> dict[str, Any]:
        """As a JSON object, flat."""
        process = dataclasses.asdict(self.process)
        process["process_started"] = process.pop("started")
        return process | {
            "started": self.started,
            "heartbeat": self.heartbeat,
            "ended": self.ended,
            "how": self.how,
            "fetched": self.fetched,
        }


def _read(store: Store, name: str) -> _Run | None:
    try:
        value = store.read_json(*_run_parts(name))
        if value is None:
            return None
        process = Process(value["host"], value["pid"], value["user"], value["process_started"])
        return _Run(process, value["started"], value["heartbeat"], value["ended"], value["how"], value["fetched"])
    except OSError as error:
        if is_passing(error):
            raise
        return None
    except (ValueError, KeyError, TypeError):  # damaged, or of another version: as good as none
        return None


def _running_state(holder: Holder | None, run: _Run | None) -> State:
    """The note beside the lock is written before run.json, which may still be of the run before."""
    if holder is not None:
        return State("running", None, holder.since, holder.process)
    if run is not None and run.ended is None:
        return State("running", None, run.started, run.process)
    return State("running")


def _leave(store: Store, name: str, run: _Run) -> None:
    with contextlib.suppress(OSError):
        store.remove(*_stop_parts(name))
        store.write_json(run.as_json(), *_run_parts(name))
        store.pull("searches", name, lock=lock_of(name))  # which notes that what was sent is what is there


def _leave_no_trace(store: Store, name: str, before: _Run | None) -> None:
    """Of a launch that has not come to write anything of the search: what was known before it is known again."""
    if before is not None:
        _leave(store, name, before)
        return
    folder = store.path("searches", name)
    with contextlib.suppress(OSError):
        store.remove(*_stop_parts(name))
        store.remove(*_run_parts(name))
        folder.rmdir()  # unless there is something else in it; likewise the next
        folder.parent.rmdir()


def _print_of_search(store: Store, name: str) -> tuple[int, int] | None:
    """What changes whenever the search's record is written; None if there is none."""
    try:
        found = store.path("searches", name, "search.json").stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ino


def _run_parts(name: str) -> tuple[str, str, str]:
    return "searches", name, "run.json"


def _stop_parts(name: str) -> tuple[str, str, str]:
    return "searches", name, "stop"
