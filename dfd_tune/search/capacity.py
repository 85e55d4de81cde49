"""The cluster as it is now: which jobs fit beside those that run, and what an autoscaler should make room for.

Nodes come and go during a search, so nothing here is fixed at its start. Not for: starting Ray (runtime.py).
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from functools import cache

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
        free = {node.id: [node.cpus, node.gpus, max(node.memory, TRIAL_MEMORY_BYTES)] for node in self.nodes()}
        wanted = cache(self._wanted)  # asked a thousand times where a thousand jobs run
        # What is known to be somewhere is there; only then is the rest fitted in.
        for placed in sorted(running, key=lambda placed: placed.node is None):
            here = [placed.node] if placed.node in free else [node for node in free if node not in placed.avoid]
            for _ in range(placed.job.workers):
                _take(wanted(placed.job.kind), free, here)
        usable = [node for node in free if node not in avoid]
        return all(_take(wanted(job.kind), free, usable) for _ in range(job.workers))

    def _wanted(self, kind: Kind) -> tuple[float, float, float]:
        self.nodes()
        # Threads are frozen, the CPUs held for them are not: a search goes on on a smaller machine.
        return (
            min(self.resources.worker_cpus(kind), max(self._most_cpus, self.resources.cpus)),
            self.resources.gpus,
            TRIAL_MEMORY_BYTES,
        )

    def bundle(self, job: Job) -> dict[str, float]:
        """What one worker of a job asks Ray for."""
        cpus, gpus, _ = self._wanted(job.kind)
        return {"CPU": cpus} | ({"GPU": gpus} if gpus else {})

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


def _take(wanted: tuple[float, float, float], free: dict[str, list[float]], nodes: Iterable[str | None]) -> bool:
    """Take what a worker wants (CPUs, GPUs, bytes) from the first of the nodes that has it free."""
    for node in nodes:
        room = free[node or ""]
        if all(have + TOLERANCE >= want for have, want in zip(room, wanted, strict=True)):
            room[:] = [have - want for have, want in zip(room, wanted, strict=True)]
            return True
    return False


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
