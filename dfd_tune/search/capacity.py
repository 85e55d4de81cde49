"""The cluster as it is now: which jobs fit beside those that run, and what an autoscaler should make room for.

Nodes come and go during a search, so nothing here is fixed at its start. Not for: starting Ray (runtime.py).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from dfd_tune.errors import UserError
from dfd_tune.search.jobs import Job, Kind, Placed

TRIAL_MEMORY_BYTES = 1_500_000_000
"""What a job's process is reckoned to take; bounds how many run at once where cores are many and memory is not."""
LOOK_SECONDS = 1.0
"""How long a look at the cluster's nodes serves."""
MOST_ASKED_FOR = 1000
"""Bundles that an autoscaler is asked for at most; no cluster has room for more at once."""
TOLERANCE = 1e-6
"""Fractions of a CPU or GPU do not add up exactly."""


@dataclass(frozen=True)
class Resources:
    """What the processes of a search get. Decided when it is first planned and kept, as threads change rounding."""

    device: str
    """cpu or cuda."""
    cpus: float
    """Of one worker of a trial; its whole part is the number of torch's threads."""
    gpus: float
    network_cpus: float
    """As `cpus`, for teachers, base networks and front ends, which come before all else."""

    def threads(self, kind: str) -> int:
        """Torch threads of a worker of a job."""
        return max(1, int(self.network_cpus if kind in ("network", "frontend") else self.cpus))

    def worker_cpus(self, kind: str) -> float:
        """CPUs that a worker of a job holds."""
        return self.network_cpus if kind in ("network", "frontend") else self.cpus


@dataclass(frozen=True)
class Node:
    """A machine of the cluster, alive."""

    id: str
    host: str
    cpus: float
    gpus: float
    memory: float
    """Bytes that Ray may give away."""


class Cluster:
    """The nodes that are alive, looked at anew every second.

    Args:
        resources: of the search.
        look: the nodes as they are now.
        clock: seconds.
        ask: makes an autoscaler have room for these bundles in all; None where there is none to ask.
    """

    def __init__(
        self,
        resources: Resources,
        look: Callable[[], Sequence[Node]],
        clock: Callable[[], float] = time.monotonic,
        ask: Callable[[list[dict[str, float]]], None] | None = None,
    ):
        self.resources = resources
        self._look = look
        self._clock = clock
        self._ask = ask
        self._asked: list[dict[str, float]] = []
        self._seen_at: float | None = None
        self._nodes: tuple[Node, ...] = ()
        self._most_cpus = 0.0
        """Of a node."""

    def nodes(self) -> tuple[Node, ...]:
        """The nodes that are alive."""
        now = self._clock()
        if self._seen_at is None or now - self._seen_at >= LOOK_SECONDS:
            self._nodes, self._seen_at = tuple(self._look()), now
            self._most_cpus = max((node.cpus for node in self._nodes), default=0.0)
        return self._nodes

    def has_room(self, job: Job, running: Iterable[Placed], avoid: Collection[str]) -> bool:
        """Whether all workers of `job` fit beside what runs, first fit, off the nodes to avoid."""
        free = {node.id: _Free.of(node) for node in self.nodes()}
        wanted = cache(self._wanted)  # asked a thousand times where a thousand jobs run
        # What is known to be somewhere is there; only then is the rest fitted in.
        for placed in sorted(running, key=lambda placed: placed.node is None):
            here = [placed.node] if placed.node in free else [node for node in free if node not in placed.avoid]
            for _ in range(placed.job.workers):
                _take(wanted(placed.job.kind, placed.job.gpus), free, here)
        usable = [node for node in free if node not in avoid]
        return all(_take(wanted(job.kind, job.gpus), free, usable) for _ in range(job.workers))

    def _wanted(self, kind: Kind, gpus: float | None) -> _Wanted:
        """What a worker of such a job takes, with that share of a GPU or, with None, the search's."""
        self.nodes()
        # Threads are frozen, the CPUs held for them are not: a search goes on on a smaller machine.
        cpus = min(self.resources.worker_cpus(kind), max(self._most_cpus, self.resources.cpus))
        return _Wanted(cpus, self.resources.gpus if gpus is None else gpus)

    def bundle(self, job: Job) -> dict[str, float]:
        """What one worker of a job asks Ray for."""
        wanted = self._wanted(job.kind, job.gpus)
        return {"CPU": wanted.cpus} | ({"GPU": wanted.gpus} if wanted.gpus else {})

    def ask_for(self, jobs: Sequence[Job]) -> None:
        """Tell an autoscaler how large a cluster would run these jobs, all at once; with none, that it is no longer
        needed."""
        if self._ask is None:
            return
        bundles = [self.bundle(job) for job in jobs[:MOST_ASKED_FOR] for _ in range(job.workers)][:MOST_ASKED_FOR]
        if bundles != self._asked:
            self._ask(bundles)
            self._asked = bundles

    def gone(self, node: str) -> bool:
        """Whether a node is no longer there."""
        return all(known.id != node for known in self.nodes())


class _Wanted(NamedTuple):
    """What a worker takes of a node, beside its memory."""

    cpus: float
    gpus: float


@dataclass
class _Free:
    """What is free of a node."""

    cpus: float
    gpus: list[float]
    """Of each of its GPUs: a share is of one, never put together from several."""
    memory: float

    @classmethod
    def of(cls, node: Node) -> _Free:
        """All of it."""
        whole, rest = int(node.gpus), node.gpus % 1
        return cls(node.cpus, [1.0] * whole + [rest] * bool(rest), max(node.memory, TRIAL_MEMORY_BYTES))

    def give(self, wanted: _Wanted) -> bool:
        """Give a worker what it wants, if that is free."""
        if self.cpus + TOLERANCE < wanted.cpus or self.memory + TOLERANCE < TRIAL_MEMORY_BYTES:
            return False
        shares = self._shares(wanted.gpus) if wanted.gpus else []
        if shares is None:
            return False
        self.cpus -= wanted.cpus
        self.memory -= TRIAL_MEMORY_BYTES
        for number, share in shares:
            self.gpus[number] -= share
        return True

    def _shares(self, wanted: float) -> list[tuple[int, float]] | None:
        """Which GPUs to take of, and how much of each, as Ray does: of the one on which least is left over."""
        each, count = (wanted, 1) if wanted < 1 else (1.0, round(wanted))
        least = each - TOLERANCE
        fit = [(left, number) for number, left in enumerate(self.gpus) if left >= least]
        if len(fit) < count:
            return None
        return [(number, each) for _, number in ([min(fit)] if count == 1 else fit[:count])]


def _take(wanted: _Wanted, free: dict[str, _Free], nodes: Iterable[str | None]) -> bool:
    """Take what a worker wants from the first of the nodes that has it free."""
    return any(free[node or ""].give(wanted) for node in nodes)


def ray_nodes() -> list[Node]:
    """The nodes of the Ray cluster that this process is connected to."""
    import ray

    return [
        Node(
            id=node["NodeID"],
            host=node["NodeManagerHostname"],
            cpus=node["Resources"].get("CPU", 0.0),
            gpus=node["Resources"].get("GPU", 0.0),
            memory=node["Resources"].get("memory", float("inf")),
        )
        for node in ray.nodes()
        if node["Alive"]
    ]


def ask_autoscaler(bundles: list[dict[str, float]]) -> None:
    """Ray's `request_resources`: the cluster is to have room for these bundles, whether in use or not."""
    from ray.autoscaler.sdk import request_resources

    with contextlib.suppress(ConnectionError):
        request_resources(bundles=bundles)


def refuse_what_never_fits(resources: Resources, workers: int, nodes: Sequence[Node], *, may_grow: bool) -> None:
    """Hold one worker against the largest node, and all of a trial's workers against the sum.

    Args:
        resources: of the search.
        workers: of a trial.
        nodes: the cluster as it is now.
        may_grow: whether an autoscaler may yet bring nodes of other kinds, so that nothing can be said.

    Raises:
        UserError: not even one trial fits.
    """
    if may_grow or (resources.gpus and nodes and all(node.gpus == 0 for node in nodes)):
        return  # a GPU that was asked for is waited for
    slots = 0
    for node in nodes:
        fits = [node.cpus / resources.cpus] + ([node.gpus / resources.gpus] if resources.gpus else [])
        slots += int(min(fits) + TOLERANCE)
    if slots >= workers:
        return
    largest = max(nodes, key=lambda node: (node.gpus if resources.gpus else 0.0, node.cpus), default=None)
    have = "no node" if largest is None else f"{largest.cpus:g} CPUs and {largest.gpus:g} GPUs on its largest node"
    raise UserError(
        f"A trial of {workers} worker(s) with {resources.cpus:g} CPU and {resources.gpus:g} GPU each does not fit: the "
        f"cluster has {have}, {len(nodes)} node(s) in all; lower --workers-per-trial, --cpus-per-worker or "
        "--gpus-per-worker."
    )
