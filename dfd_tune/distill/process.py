"""The seam between training and whatever runs it: what a training function may ask of its surroundings.

Training code sees only a `Process`, so it does not know whether it runs alone, in a Tune trial or as one of
several Ray Train workers. Not for: the Ray side of the seam (search/worker.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch


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


@dataclass(frozen=True)
class SingleProcess:
    """A process of its own, which keeps what is reported."""

    device: torch.device = torch.device("cpu")
    rank: int = 0
    world_size: int = 1
    reported: list[dict[str, float]] = field(default_factory=list)

    def report(self, metrics: Mapping[str, float]) -> None:
        """Append the metrics to `reported`."""
        self.reported.append(dict(metrics))
