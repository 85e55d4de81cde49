"""What the processes of a search get, decided when it is first planned: device, CPUs and GPUs of each.

Not for: which of them fit beside each other now (capacity.py), or a GPU's share that grows (shares.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache
from typing import Any, Literal

import torch

from dfd_tune.data.prepared import Dataset
from dfd_tune.distill.probe import Kind
from dfd_tune.forecast import FIRST_PROCESS_SECONDS, Pool, Speed, Task, Work, finished_after
from dfd_tune.models import build_network
from dfd_tune.models.cost import multiply_adds
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
MULTIPLY_ADDS_A_SECOND = 20e9
WORTH_IT = 0.95
"""More than this share of the time is no gain that a guess can tell."""
AN_IMAGE = 5e-4
"""Seconds beside what is multiplied."""


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
    the trials' own where that gains little."""
    largest = min(max((node.cpus for node in nodes), default=0.0), MOST_NETWORK_CPUS)
    widths = [narrow.cpus]
    while 2 * widths[-1] <= largest:
        widths.append(2 * widths[-1])
    if len(widths) == 1:
        return narrow.cpus
    pool = Pool(sum(node.cpus for node in nodes), sum(node.gpus for node in nodes))
    works = [work for work in works_of(plan, store, {}, narrow) if work.stage == "search"]
    made = {work.makes for work in works if work.count}
    works = [replace(work, needs=work.needs & made) for work in works]  # the store has the rest

    def ends(width: float) -> float:
        tasks = [task for work in works for task in _tasks(work, width, plan.dataset)]
        # Processes of another size than the trials' can't be reused for these.
        again = 0.0 if width == narrow.cpus else FIRST_PROCESS_SECONDS
        return round(finished_after(tasks, pool) + again, 3)

    best = min(widths, key=lambda width: (ends(width), width))
    return best if ends(best) < WORTH_IT * ends(narrow.cpus) else narrow.cpus


def _tasks(work: Work, width: float, dataset: Dataset) -> list[Task]:
    """The jobs of some work, where networks have so many CPUs each."""
    cpus = work.cpus if work.makes is None else width
    threads = 1.0 if work.gpus else max(1.0, float(int(cpus))) ** THREADS_PAY
    look = AN_IMAGE
    if isinstance(work.kind, Kind):
        look += _multiply_adds(work.kind.backbone, work.kind.width, dataset) / MULTIPLY_ADDS_A_SECOND
    seconds = work.seconds(Speed(3 * look / threads, look / threads, "a guess"))
    task = Task(seconds, work.workers * cpus, work.workers * work.gpus, work.makes, work.needs)
    return [task] * work.count


def _multiply_adds(backbone: str, width: float, dataset: Dataset) -> int:
    """Of a look at one image."""
    return _counted(backbone, width, dataset.channels, dataset.image_size, len(dataset.classes))


@cache
def _counted(backbone: str, width: float, channels: int, image_size: int, classes: int) -> int:
    network = build_network(
        backbone,
        width=width,
        dropout=0.0,
        channels=channels,
        image_size=image_size,
        num_classes=classes,
        seed=0,
    )
    return multiply_adds(network.eval(), torch.zeros(1, channels, image_size, image_size))


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
