"""What a search will cost, by arithmetic: how long each training takes, and all of them together.

Speeds are measured elsewhere: by a probe (distill/probe.py), or by trials that ran before (search/estimate.py). Not
for: what there is to be done (plan.py), or which of it is next (search/agenda.py).
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

Stage = Literal["search", "confirm"]
"""A stage begins when the one before has ended."""
STAGES: tuple[Stage, ...] = ("search", "confirm")

FIRST_PROCESS_SECONDS = 8.0
"""From Ray's start to the first job's: a process that imports torch."""
JOB_SECONDS = 1.0
"""What a job takes beside its training: handed out, images put at hand, weights written, its end told."""
TOLERANCE = 1e-6
"""Fractions of a CPU or GPU do not add up exactly."""


@dataclass(frozen=True)
class Speed:
    """How long a training of some kind takes for an image."""

    training: float
    """Seconds per training image and epoch, all workers of a trial together."""
    evaluation: float
    """Seconds per image that is only looked at: of validation, of a test, into a bank."""
    source: str
    """How that is known."""


@dataclass(frozen=True, kw_only=True)
class Work:
    """Jobs that are alike."""

    what: str
    """For a person."""
    stage: Stage
    kind: Hashable
    """What the speed depends on."""
    count: int
    """How many are to be run."""
    reused: int = 0
    """How many more the store has already."""
    epochs: float
    images: int
    """Trained on, an epoch."""
    evaluated: float
    """Validation images looked at an epoch; on average, where not every epoch looks at them."""
    looked_at: int = 0
    """Looked at once: views that go into a bank, test images."""
    workers: int = 1
    cpus: float
    """Of a worker; likewise `gpus`."""
    gpus: float = 0.0
    makes: str | None = None
    """What other jobs may need."""
    needs: frozenset[str] = frozenset()
    bytes_each: int = 0
    """What one of them leaves in the store."""

    def seconds(self, speed: Speed) -> float:
        """How long one of them takes."""
        an_epoch = self.images * speed.training + self.evaluated * speed.evaluation
        return self.epochs * an_epoch + self.looked_at * speed.evaluation + JOB_SECONDS


@dataclass(frozen=True)
class Part:
    """What is forecast of jobs that are alike."""

    what: str
    stage: Stage
    count: int
    reused: int
    seconds: float | None
    """Of one; None where nothing is known of such a training."""
    source: str | None


@dataclass(frozen=True)
class Forecast:
    """What a search, or what is left of it, will cost."""

    parts: tuple[Part, ...]
    device: str
    """cpu or cuda: what `device_hours` counts, cores or GPUs."""
    at_once: int | None
    """How many trials run at once; None where the machines are not known."""
    wall_seconds: float | None
    """From the first process to the end of the last job; None where it can't be told."""
    device_hours: float | None
    disk_bytes: int
    """What comes into the store."""
    outcome: dict[str, float] = field(default_factory=dict)
    """What came of it: `jobs`, `wall_seconds`, `device_hours`; empty while it is not known."""

    @property
    def jobs(self) -> int:
        """How many trainings are to be run."""
        return sum(part.count for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """As a search's record keeps it."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Forecast:
        """What `to_json` made into `value`."""
        return cls(**{**value, "parts": tuple(Part(**part) for part in value["parts"])})


@dataclass(frozen=True)
class Pool:
    """What jobs run on: the machines taken together."""

    cpus: float
    gpus: float = 0.0

    def at_once(self, cpus: float, gpus: float) -> int:
        """How many workers fit at once."""
        fits = [self.cpus / cpus] + ([self.gpus / gpus] if gpus else [])
        return int(min(fits) + TOLERANCE)


def forecast(
    works: Sequence[Work],
    speeds: Mapping[Hashable, Speed],
    *,
    device: str,
    pool: Pool | None,
    trial: tuple[int, float, float],
    disk_bytes: int = 0,
) -> Forecast:
    """Put together what `works` cost.

    Args:
        works: the jobs, the most urgent first.
        speeds: by kind.
        device: cpu or cuda.
        pool: what they run on; None if that is not known.
        trial: workers of a trial, and CPUs and GPUs of each.
        disk_bytes: what comes into the store beside what each job leaves.
    """
    parts, known, spent = list[Part](), True, 0.0
    for work in works:
        speed = speeds.get(work.kind)
        seconds = None if speed is None else work.seconds(speed)
        parts.append(
            Part(work.what, work.stage, work.count, work.reused, seconds, None if speed is None else speed.source)
        )
        if seconds is None:
            known = known and work.count == 0
        else:
            spent += work.count * work.workers * seconds * (work.gpus if device == "cuda" else work.cpus)
    workers, cpus, gpus = trial
    wall = None
    if pool is not None and known:
        stages = ([work for work in works if work.stage == stage] for stage in STAGES)
        wall = sum(finished_after(_tasks(stage, speeds), pool) for stage in stages)
        wall += FIRST_PROCESS_SECONDS if wall else 0.0
    return Forecast(
        parts=_together(parts),
        device=device,
        at_once=None if pool is None else pool.at_once(cpus, gpus) // workers,
        wall_seconds=wall,
        device_hours=spent / 3600 if known else None,
        disk_bytes=disk_bytes + sum(work.count * work.bytes_each for work in works),
    )


def _together(parts: Iterable[Part]) -> tuple[Part, ...]:
    """Parts that say the same of their jobs as one, as the trials of several teachers that are alike."""
    found: dict[tuple[Any, ...], Part] = {}
    for part in parts:
        says = (part.what, part.stage, part.seconds, part.source)
        before = found.get(says)
        count, reused = (0, 0) if before is None else (before.count, before.reused)
        found[says] = replace(part, count=part.count + count, reused=part.reused + reused)
    return tuple(found.values())


@dataclass(frozen=True)
class Task:
    """One job of a schedule."""

    seconds: float
    cpus: float
    gpus: float = 0.0
    makes: str | None = None
    needs: frozenset[str] = frozenset()


def _tasks(works: Iterable[Work], speeds: Mapping[Hashable, Speed]) -> list[Task]:
    made = {work.makes for work in works if work.count}
    return [
        Task(
            work.seconds(speeds[work.kind]),
            work.workers * work.cpus,
            work.workers * work.gpus,
            work.makes,
            frozenset(work.needs & made),
        )
        for work in works
        for _ in range(work.count)
    ]


def finished_after(tasks: Sequence[Task], pool: Pool) -> float:
    """Seconds until all are done, where each begins as soon as what it needs is there and there is room, in order.

    A task that wants more than there is gets all there is.
    """
    ready: dict[tuple[float, float], deque[tuple[int, Task]]] = {}
    """By what they want, each with its place: so a task is looked at once, however many wait."""
    blocked: list[tuple[int, Task]] = []
    running: list[tuple[float, int, tuple[float, float], Task]] = []
    free, now, made = (pool.cpus, pool.gpus), 0.0, set[str]()

    def add(place: int, task: Task) -> None:
        wants = (min(task.cpus, pool.cpus), min(task.gpus, pool.gpus))
        ready.setdefault(wants, deque()).append((place, task))

    for place, task in enumerate(tasks):
        if task.needs:
            blocked.append((place, task))
        else:
            add(place, task)
    while True:
        fitting = [wants for wants, queue in ready.items() if queue and _fits(wants, free)]
        if fitting:
            wants = min(fitting, key=lambda wants: ready[wants][0][0])
            place, task = ready[wants].popleft()
            free = (free[0] - wants[0], free[1] - wants[1])
            heapq.heappush(running, (now + task.seconds, place, wants, task))
            continue
        if not running:
            return now
        now, _, wants, done = heapq.heappop(running)
        free = (free[0] + wants[0], free[1] + wants[1])
        if done.makes is not None:
            made.add(done.makes)
            for place, task in (waiting for waiting in blocked if waiting[1].needs <= made):
                add(place, task)
            blocked = [waiting for waiting in blocked if not waiting[1].needs <= made]


def _fits(wants: tuple[float, float], free: tuple[float, float]) -> bool:
    return all(have + TOLERANCE >= want for want, have in zip(wants, free, strict=True))


def in_words(found: Forecast) -> list[str]:
    """A forecast in lines for a person, the sum last."""
    unit = "GPU" if found.device == "cuda" else "core"
    lines = []
    for part in found.parts:
        reused = f", {part.reused} more from the store" if part.reused else ""
        if not part.count:
            lines.append(f"{part.what}: from the store" + (f", all {part.reused}" if part.reused > 1 else ""))
        elif part.seconds is None:
            lines.append(f"{part.what}: {part.count}{reused}; no trial like it is known, so its time is not")
        else:
            lines.append(f"{part.what}: {part.count} × {duration(part.seconds)} by {part.source}{reused}")
    at_once = "" if found.at_once is None else f" ({found.at_once} at once)"
    time = "a time that can't be told"
    if found.wall_seconds is not None:
        time = f"about {duration(found.wall_seconds)} beside start and conclusion"
    hours = "" if found.device_hours is None else f", {found.device_hours:.2g} {unit}-hours"
    lines.append(
        f"In all {found.jobs} trainings{at_once}: {time}{hours}, {found.disk_bytes / 1e6:,.1f} MB in the store"
    )
    return lines


def against_outcome(recorded: Mapping[str, Any]) -> str | None:
    """One line: what a search's last launch was forecast to cost, and what it did; None where that is not known.

    Args:
        recorded: the forecast of its record.
    """
    if not recorded:
        return None
    found = Forecast.from_json(recorded)
    outcome = found.outcome
    if not outcome:
        return None
    unit = "GPU" if found.device == "cuda" else "core"
    time, hours = "not forecast", "not forecast"
    if found.wall_seconds:
        off = outcome["wall_seconds"] / found.wall_seconds - 1
        time = f"planned {duration(found.wall_seconds)}, {off:+.0%}"
    if found.device_hours:
        hours = f"planned {found.device_hours:.2g}"
    return (
        f"Planned against outcome: {outcome['jobs']:g} trainings (planned {found.jobs}), "
        f"{duration(outcome['wall_seconds'])} ({time}), {outcome['device_hours']:.2g} {unit}-hours ({hours})"
    )


def duration(seconds: float) -> str:
    """A time in words, to about two digits."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
