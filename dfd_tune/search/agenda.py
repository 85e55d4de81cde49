"""The agenda of a search: which job is done next, what a failure leads to, and when there is nothing left.

Jobs wait for what they need; points of the space are drawn as there is room; when all is done, the follow-up says what
comes after (the λ = 0 twin of the best, then the test images). A machine's failure leads to another attempt, as often
as is allowed; too little of a GPU's memory, to one with a larger share of it; an exception that comes again at the same
epoch is the job's own. Nothing here knows Ray, so all of it can be tried without. Not for: running jobs (driver.py,
worker.py), or what is remembered of them (ledger.py).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from dfd_tune.config import TrialConfig
from dfd_tune.search.faults import Failure
from dfd_tune.search.jobs import Attempt, Job, JobId, Kind, Placed
from dfd_tune.search.limits import Limits
from dfd_tune.search.points import Points
from dfd_tune.search.shares import DOES_NOT_FIT, Shares

LOOK_AHEAD = 16
"""So many ready jobs are looked at for one that fits."""
SICK_AFTER = 3
"""So many machine's failures on a node, with no success there in between, and it is left out."""


class Room(Protocol):
    """Whether a job fits: the cluster as it is now."""

    def has_room(self, job: Job, running: Iterable[Placed], avoid: Collection[str]) -> bool:
        """Whether `job` fits beside the running ones, off the nodes to avoid."""

    def gone(self, node: str) -> bool:
        """Whether a node is no longer there."""


@dataclass
class _Past:
    """What is known of a job's earlier attempts in this launch."""

    attempts: int = 0
    failures: int = 0
    own_at_epoch: int | None = None
    """Where an exception of unknown fault was seen."""
    avoid: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class Verdict:
    """What a failure leads to."""

    again: bool
    """Whether there is another attempt."""
    failure: Failure
    """As it is to be recorded; an exception that came again is the job's own by then."""
    left_out: str | None = None
    """Id of a node that is left out from now on."""
    gpus: float | None = None
    """The larger share of a GPU that the next attempt gets; None where there is none, or it has the share as before."""


def _is_of_search(job: Job) -> bool:
    return job.kind == "trial" and job.stage == "search"


def _not_begun(job: Job, past: Mapping[JobId, _Past]) -> bool:
    return _is_of_search(job) and job.id not in past


class Agenda:
    """What is left to do.

    Args:
        jobs: those known from the start, the most urgent first.
        points: where trials come from.
        trial: makes a point's job.
        follow_up: jobs that come when all else is done; asked again after these, until it has none.
        max_failures: how many of the machine's failures a job may have and be tried again.
        shares: what each job gets of a GPU; None where that never changes.
        limits: how much of the search is done now; None for all of it.
    """

    def __init__(
        self,
        jobs: Iterable[Job],
        points: Points,
        trial: Callable[[str, TrialConfig], Job],
        follow_up: Callable[[], list[Job]],
        max_failures: int,
        shares: Shares | None = None,
        limits: Limits | None = None,
    ):
        self._ready: deque[Job] = deque()
        self._blocked: dict[JobId, Job] = {}
        self._running: dict[JobId, Attempt] = {}
        self._where: dict[JobId, str] = {}
        self._done: set[JobId] = set()
        self._broken: dict[JobId, Failure] = {}
        self._known: set[JobId] = set()
        self._past: dict[JobId, _Past] = {}
        self._bad_nodes: Counter[str] = Counter()
        self.left_out: set[str] = set()
        self.changes = 0
        """Counts what may bring about that another job can begin; so may a look at the nodes."""
        self.cut_short = False
        """Whether a limit has left trials that could have begun."""
        self.stopping = False
        """Set to propose nothing more; what runs is waited for."""
        self.full: Failure | None = None
        """That the store had no room, which ended the search."""
        self._points = points
        self._more_points = True
        self._last_trial: Job | None = None
        self._trial = trial
        self._follow_up = follow_up
        self._max_failures = max_failures
        self._shares = Shares(0.0) if shares is None else shares
        self._limits = Limits() if limits is None else limits
        self._begun = 0
        self._limited = False
        for job in jobs:
            self._add(job)
        if points.at_once:
            self._draw_all()

    @property
    def running(self) -> list[Attempt]:
        """What runs."""
        return list(self._running.values())

    def open_jobs(self) -> Iterator[Job]:
        """What runs, and what is known to come."""
        yield from (attempt.job for attempt in self._running.values())
        yield from map(self._shares.given, self._ready)
        yield from map(self._shares.given, self._blocked.values())

    @property
    def broken(self) -> dict[JobId, Failure]:
        """Jobs that ended without what others need."""
        return self._broken

    def next(self, room: Room) -> Attempt | None:
        """The next job for which there is room; None if there is none now."""
        if self.stopping:
            return None
        self._keep_to_limits()
        self._draw_if_room(room)
        running = self._placed()
        full: set[tuple[Kind, int, float | None, frozenset[str]]] = set()
        # A job that waits for a node of its own, or for more of a GPU, does not hold up those behind it.
        for waiting in itertools.islice(self._ready, LOOK_AHEAD):
            job = self._shares.given(waiting)
            avoid = self._avoided(job, room)
            wanted = (job.kind, job.workers, job.gpus, frozenset(avoid))
            if wanted in full:
                continue  # it wants what another one did not get
            if room.has_room(job, running, avoid):
                self._ready.remove(waiting)
                return self._begin(job, avoid)
            full.add(wanted)
        return None

    def _begin(self, job: Job, avoid: set[str]) -> Attempt:
        past = self._past.setdefault(job.id, _Past())
        past.attempts += 1
        self._begun += past.attempts == 1 and _is_of_search(job)
        attempt = Attempt(job=job, number=past.attempts, avoid=tuple(sorted(avoid)))
        self._running[job.id] = attempt
        return attempt

    def finished(self) -> bool:
        """Whether nothing is left. Asks for what follows when all else is done."""
        if self._running:
            return False
        if self.stopping:
            return True
        self._keep_to_limits()
        self._draw_one()
        if self._ready:
            return False
        self._blocked.clear()  # nothing runs that could free them: what they need is broken
        if self._broken:
            return True
        for job in self._follow_up():
            self._add(job)
        return not self._ready and not self._blocked

    def started(self, job: JobId, node: str) -> None:
        """An attempt runs on a node."""
        self.changes += 1
        self._where[job] = node

    def succeeded(self, job: Job, values: Sequence[float] | None = None) -> None:
        """A job is done; of a trial, with a value for each objective."""
        self._close(job.id)
        self._bad_nodes.pop(self._where.pop(job.id, ""), None)
        self._past.pop(job.id, None)
        self._finish(job)
        if job.kind == "trial":
            self._points.tell(job.key, values)

    def stopped_early(self, job: Job, values: Mapping[int, float]) -> None:
        """A trial was ended by its scheduler, with these values of what the search chooses by, by epoch; it has no
        result."""
        self._close(job.id)
        self._bad_nodes.pop(self._where.pop(job.id, ""), None)
        self._past.pop(job.id, None)
        self._points.stopped_early(job.key, values)

    def stopped(self, job: Job) -> None:
        """A job ended early, as it was asked to: the search is to stop, also where the driver has not looked yet."""
        self.stopping = True
        self._close(job.id)
        self._where.pop(job.id, None)

    def failed(self, job: Job, failure: Failure, room: Room) -> Verdict:
        """An attempt at `job`, as the attempt has it, ended without a result."""
        self._close(job.id)
        if failure.store_full:
            self.stopping, self.full = True, failure
            self._where.pop(job.id, None)
            return Verdict(True, failure)
        if failure.gpu_memory and self._shares.planned:
            return self._short_of_memory(job, failure)
        past, node = self._past.setdefault(job.id, _Past()), self._where.pop(job.id, "")
        left_out = self._blame(job, node, failure, room)
        again = False
        if failure.fault == "machine":
            past.failures += failure.counts
            again = past.failures <= self._max_failures
        elif failure.fault == "unknown":
            again = past.own_at_epoch != failure.epoch and past.failures < self._max_failures
            past.failures += 1
            if past.own_at_epoch == failure.epoch:
                failure = dataclasses.replace(failure, fault="trial")
            past.own_at_epoch = failure.epoch
            past.avoid.add(node)
        if again and not self.stopping:
            self._ready.appendleft(job)
        elif not again:
            self._give_up(job, failure)
        return Verdict(again, failure, left_out)

    def _short_of_memory(self, job: Job, failure: Failure) -> Verdict:
        """Nobody's fault, so long as there is more to be had of a GPU."""
        self._where.pop(job.id, None)
        gpus = self._shares.enlarged(job)
        if gpus is None:
            failure = dataclasses.replace(failure, fault="trial", cause=DOES_NOT_FIT, plain=True)
            self._give_up(job, failure)
        elif not self.stopping:
            self._ready.appendleft(job)
        return Verdict(gpus is not None, failure, gpus=gpus)

    def _keep_to_limits(self) -> None:
        """Once a limit is reached, forget the search's trials that have not begun; what follows may ask for them."""
        if self._limited or (limit := self._limits.reached(self._begun)) is None:
            return
        self._limited = True
        waiting = [job for job in (*self._ready, *self._blocked.values()) if _not_begun(job, self._past)]
        if waiting or (self._more_points and self._points.left()):
            self.cut_short = True
            self._limits.tell(limit)
        self._more_points = False
        for job in waiting:
            self._known.discard(job.id)
            self._blocked.pop(job.id, None)
        self._ready = deque(job for job in self._ready if job not in waiting)

    def _placed(self) -> list[Placed]:
        return [
            Placed(attempt.job, self._where.get(job) if attempt.job.workers == 1 else None, attempt.avoid)
            for job, attempt in self._running.items()
        ]

    def _draw_if_room(self, room: Room) -> None:
        # What a sampler gives depends on what it was told, so it is asked only when a trial could begin at once.
        probe = None if self._last_trial is None else self._shares.given(self._last_trial)
        if probe is None or self._ready or room.has_room(probe, self._placed(), self.left_out):
            self._draw_one()

    def _draw_one(self) -> None:
        if self._ready or self._blocked or not self._more_points or self._prerequisites_run():
            return
        point = self._points.ask()
        self._more_points = point is not None
        if point is not None:
            self._last_trial = self._trial(*point)
            self._add(self._last_trial)

    def _draw_all(self) -> None:
        while (point := self._points.ask()) is not None:
            self._add(self._trial(*point))
        self._more_points = False

    def _prerequisites_run(self) -> bool:
        return any(kind in ("network", "frontend") for kind, _ in self._running)

    def _add(self, job: Job) -> None:
        if job.id in self._known:
            return
        self._known.add(job.id)
        if job.needs <= self._done:
            self._ready.append(job)
        else:
            self._blocked[job.id] = job

    def _finish(self, job: Job) -> None:
        self._known.add(job.id)
        self._done.add(job.id)
        if job.kind not in ("network", "frontend") and not any(
            job.id in other.needs for other in self._blocked.values()
        ):
            return
        free = [waiting for waiting in self._blocked.values() if waiting.needs <= self._done]
        for waiting in free:
            del self._blocked[waiting.id]
            self._ready.append(waiting)

    def _close(self, job: JobId) -> None:
        self.changes += 1
        self._running.pop(job, None)

    def _give_up(self, job: Job, failure: Failure) -> None:
        if job.kind == "trial":
            self._points.tell(job.key, None)
        else:
            self._broken[job.id] = failure

    def _blame(self, job: Job, node: str, failure: Failure, room: Room) -> str | None:
        """Count a machine's failure against its node; the node's id if it is left out from now on."""
        if failure.fault != "machine" or not node or node in self.left_out or room.gone(node):
            return None
        self._bad_nodes[node] += 1
        if self._bad_nodes[node] < SICK_AFTER or not room.has_room(job, (), self.left_out | {node}):
            return None
        self.left_out.add(node)
        return node

    def _avoided(self, job: Job, room: Room) -> set[str]:
        """The nodes that a job must not run on; none where it would then have no room even in an idle cluster."""
        wanted = {
            node for node in self.left_out | self._past.get(job.id, _Past()).avoid if node and not room.gone(node)
        }
        if wanted and not room.has_room(job, (), wanted):
            return set()
        return wanted
