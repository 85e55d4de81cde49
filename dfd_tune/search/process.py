"""The Ray side of the seam between training and whatever runs it: what a job reports to the driver while it runs.

Not for: the seam itself (distill/process.py), or what runs behind it (tasks.py).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from dfd_tune.search.joblog import note

REPORT = "dfd"
"""Name under which every report carries what it says: a JSON object, so that Tune looks for nothing in it."""
SHOWN = ("loss", "val_loss", "val_accuracy", "psnr", "ssim")
"""What of an epoch's metrics stands in the job's log."""


@dataclass
class TuneProcess:
    """A process of its own inside a Tune trial, or one of several Ray Train workers."""

    device: torch.device
    send: Callable[..., None]
    """Hands a report on."""
    rank: int = 0
    world_size: int = 1
    epoch: int = 0
    """Epochs done."""

    def report(self, metrics: Mapping[str, float]) -> None:
        """Report an epoch."""
        self.epoch = int(metrics["epoch"])
        if self.rank == 0:
            note(
                f"epoch {self.epoch}: " + ", ".join(f"{name} {metrics[name]:.4g}" for name in SHOWN if name in metrics)
            )
        self.send(epoch=dict(metrics))

    def resumed(self, history: list[dict[str, float]]) -> None:
        """Report that training goes on after these epochs."""
        self.epoch = len(history)
        if self.rank == 0:
            note(f"going on after epoch {self.epoch}")
        self.send(resumed=history)


def report(send: Callable[[dict[str, Any]], None], **told: Any) -> None:
    """Hand on what a job tells, through Tune's or Ray Train's `report`."""
    send({REPORT: json.dumps(told)})
