"""What the processes of a search get, decided when it is first planned: device, CPUs and GPUs of each.

Not for: which of them fit beside each other now (capacity.py), or a GPU's share that grows (shares.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from dfd_tune.forecast import FIRST_PROCESS_SECONDS, Pool, Speed, Task, Work, finished_after
from dfd_tune.plan import Plan
from dfd_tune.search.capacity import Node, Resources
from dfd_tune.search.options import LaunchOptions
from dfd_tune.search.works import works_of
from dfd_tune.store import Store

Device = Literal["cpu", "cuda"]
MOST_NETWORK_CPUS = 8
"""More threads gain networks of this size nothing."""
THREADS_PAY = 0.65
"""So many threads train as fast as one, to this power: 1.57 times on two, where two trainings side by side get twice as
much done."""
AN_IMAGE, A_LOOK = 1e-3, 3e-4
"""Seconds for an image that is trained on, and for one that is looked at, on one thread; how they compare is what
counts."""


def resources_for(
    plan: Plan, device: Device, frozen: Mapping[str, Any], options: LaunchOptions, nodes: Sequence[Node], store: Store
) -> Resources:
    """What the search was given when it was first planned or, now, what suits the machines.

    A trial gets one CPU unless asked otherwise: two trials of one thread get more done than one of two. Networks that
    come before the trials get as many as let the search end soonest.

    Args:
        plan: of the search.
        device: cpu or cuda.
        frozen: what it was given then; empty if it was not planned before.
        options: of the launch.
        nodes: the machines.
        store: which may have some of the plan's networks already.
    """
    gpus = 0.0 if device == "cpu" else 1.0 if options.gpus_per_worker is None else options.gpus_per_worker
    if frozen:
        return replace(Resources(**frozen), gpus=gpus)
    cpus = 1.0 if options.cpus_per_worker is None else options.cpus_per_worker
    narrow = Resources(device, cpus, gpus, cpus)
    return replace(narrow, network_cpus=_network_cpus(plan, narrow, nodes, store))


def _network_cpus(plan: Plan, narrow: Resources, nodes: Sequence[Node], store: Store) -> float:
    """The CPUs of a teacher with which the search is over first, by a schedule of its jobs at speeds that compare well;
    the fewest of those that do alike."""
    largest = min(max((node.cpus for node in nodes), default=0.0), MOST_NETWORK_CPUS)
    widths = [narrow.cpus]
    while 2 * widths[-1] <= largest:
        widths.append(2 * widths[-1])
    if len(widths) == 1:
        return narrow.cpus
    pool = Pool(sum(node.cpus for node in nodes), sum(node.gpus for node in nodes))
    works = [work for work in works_of(plan, store, {}, narrow) if work.stage == "search"]

    def ends(width: float) -> float:
        # Processes of another size than the trials' can't be reused for these.
        again = 0.0 if width == narrow.cpus else FIRST_PROCESS_SECONDS
        return round(finished_after([task for work in works for task in _tasks(work, width)], pool) + again, 3)

    return min(widths, key=lambda width: (ends(width), width))


def _tasks(work: Work, width: float) -> list[Task]:
    """The jobs of some work, where networks have so many CPUs each."""
    cpus = work.cpus if work.makes is None else width
    threads = 1.0 if work.gpus else max(1.0, float(int(cpus))) ** THREADS_PAY
    seconds = work.seconds(Speed(AN_IMAGE / threads, A_LOOK / threads, ""))
    task = Task(seconds, work.workers * cpus, work.workers * work.gpus, work.makes, work.needs)
    return [task] * work.count


def in_words(resources: Resources, precision: str, *, deterministic: bool) -> str:
    """What trials train on, and what networks before them, for a person."""
    gpus = f" and {resources.gpus:g} GPU" if resources.gpus else ""
    networks = (
        f"; networks before them: {resources.network_cpus:g} CPU" if resources.network_cpus > resources.cpus else ""
    )
    how = ", deterministically" if deterministic else ""
    return (
        f"Trials train on {resources.device} in {precision}{how}, a worker with {resources.cpus:g} CPU{gpus}{networks}"
    )
