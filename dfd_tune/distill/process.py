"""The seam between training and whatever runs it: what a training function may ask of its surroundings.

Training code sees only a `Process`, so it does not know whether it runs alone, in a Tune trial or as one of
several Ray Train workers. Not for: the Ray side of the seam (search/worker.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch

EpochMetrics = dict[str, float]


class Process(Protocol):
    """One of `world_size` processes that train a network together, on its own device."""

    @property
    def rank(self) -> int:
        """This process's number, from 0."""

    @property
    def world_size(self) -> int:
        """How many processes share the global batch. With more than one, torch.distributed is set up."""

    @property
    def device(self) -> torch.device:
        """Where this process computes."""

    def report(self, metrics: Mapping[str, float]) -> None:
        """Hand on an epoch's metrics. Called once an epoch, by every rank."""

    def resumed(self, history: list[EpochMetrics]) -> None:
        """Learn the metrics of the epochs that an earlier attempt did, which are not reported again.

        Called once, by every rank, before any report, where a training goes on from a checkpoint.
        """


@dataclass(frozen=True)
class SingleProcess:
    """A process of its own, which keeps what it is told."""

    device: torch.device = torch.device("cpu")
    rank: int = 0
    world_size: int = 1
    reported: list[EpochMetrics] = field(default_factory=list)
    restored: list[EpochMetrics] = field(default_factory=list)

    def report(self, metrics: Mapping[str, float]) -> None:
        """Append the metrics to `reported`."""
        self.reported.append(dict(metrics))

    def resumed(self, history: list[EpochMetrics]) -> None:
        """Put the history into `restored`."""
        self.restored.extend(history)
