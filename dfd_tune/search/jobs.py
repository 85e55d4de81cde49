"""Jobs: what a search asks of a process, one at a time, and in which order they may come.

    network     a teacher or base network trained once, or measured if it came in a file, and its feature bank filled
    frontend    a super-resolution front end trained once
    trial       a student trained
    test        a student held against the test images, once
    reference   a teacher or base network held against the test images of its side, once

Not for: how one is done (worker.py), or which comes next (agenda.py).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from dfd_tune.config import TrialConfig
from dfd_tune.parts import FrontendConfig, Guide, PretrainedConfig
from dfd_tune.plan import PlannedFrontend, PlannedNetwork
from dfd_tune.record import Stage

Kind = Literal["network", "frontend", "trial", "test", "reference"]
JobId = tuple[Kind, str]
"""Kind and key of a job."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """One thing to be done once."""

    kind: Kind
    key: str
    """Of the network or trial that it is about."""
    config: Guide | FrontendConfig | TrialConfig
    needs: frozenset[JobId] = frozenset()
    """Jobs that must be done before."""
    weights: bool = False
    """Of a trial: whether a result whose weights are gone is not enough."""
    stage: Stage = "search"
    """Of a trial: what it is for."""
    gpus: float | None = None
    """Share of a GPU of each worker; None for the search's (shares.py)."""

    @property
    def id(self) -> JobId:
        """What tells it from other jobs."""
        return (self.kind, self.key)

    @property
    def workers(self) -> int:
        """How many processes share it."""
        return self.config.workers if self.kind == "trial" and isinstance(self.config, TrialConfig) else 1


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A job handed to a process; sent there through Tune."""

    job: Job
    number: int
    """From 1."""
    avoid: tuple[str, ...] = ()
    """Ids of the nodes that it must not run on."""

    def __str__(self) -> str:
        return f"{self.job.kind} {self.job.key}"

    def __deepcopy__(self, memo: dict[int, Any]) -> Attempt:
        """Itself: nothing of it ever changes, and Tune copies what it is given three times a trial."""
        return self


@dataclass(frozen=True)
class Placed:
    """A job that runs."""

    job: Job
    node: str | None = None
    """Id of its node; None while that is not known, and for a worker group, which may span several."""
    avoid: tuple[str, ...] = ()
    """Ids of the nodes that it is not on."""


def prerequisite_jobs(
    networks: Sequence[PlannedNetwork], frontends: Sequence[PlannedFrontend], dataset_digest: str
) -> list[Job]:
    """Everything that trials need, teachers first, each after what it needs itself."""
    jobs = [
        Job(kind="network", key=network.key, config=network.config, needs=_needs_of_network(network, dataset_digest))
        for network in networks
    ]
    jobs += [
        Job(
            kind="frontend",
            key=frontend.key,
            config=frontend.config,
            needs=frozenset(_needs_of_frontend(frontend.config, dataset_digest)),
        )
        for frontend in frontends
    ]
    return jobs


def trial_job(
    config: TrialConfig, key: str, dataset_digest: str, *, weights: bool = False, stage: Stage = "search"
) -> Job:
    """The training of a student; λ = 0 from scratch, without a front end, needs nothing before it."""
    needs: set[JobId] = {("network", network.key(dataset_digest)) for network in config.pretrained()}
    frontend = config.low_res.frontend
    if frontend is not None:
        needs.add(("frontend", frontend.key(dataset_digest)))
    return Job(kind="trial", key=key, config=config, needs=frozenset(needs), weights=weights, stage=stage)


def _needs_of_network(network: PlannedNetwork, dataset_digest: str) -> frozenset[JobId]:
    low_res = network.config.low_res
    if low_res is None or low_res.frontend is None:
        return frozenset()
    return frozenset({("frontend", low_res.frontend.key(dataset_digest))})


def _needs_of_frontend(config: FrontendConfig, dataset_digest: str) -> Iterator[JobId]:
    if isinstance(config.content, PretrainedConfig):
        yield ("network", config.content.key(dataset_digest))
