"""What a launch is told besides its request, and where that is kept for the next one.

Imports no torch, so that it is read in no time. Not for: the request itself (settings.py), nor options as a person
types them (cli/).
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from dfd_tune.defaults import KEEP_STUDENTS
from dfd_tune.errors import UserError, unknown_name
from dfd_tune.record import SearchRecord
from dfd_tune.store import Copies


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """What a launch is told besides the request itself."""

    name: str
    mlflow_uri: str | None = None
    experiment: str = ""
    """In MLflow, where several searches share one; empty for one of the search's name."""
    cpus_per_worker: float | None = None
    gpus_per_worker: float | None = None
    bank_budget: int = 8_000_000_000
    """Bytes."""
    device: str = "auto"
    """auto, cpu or cuda."""
    checkpoint_seconds: float = 60.0
    """A training is kept at an epoch's end, at most this often."""
    max_failures: int = 3
    """How often a trial goes on after a fault of the machine's."""
    retry_failed: bool = False
    """Whether trials that FAILED by their own fault run again."""
    extend: bool = False
    """Whether the search goes on in a space that holds all of its own."""
    max_seconds: float | None = None
    """After which this launch begins no more of the search's trials; None for no limit. Likewise `max_trials`."""
    max_trials: int | None = None
    """So many of them it begins."""
    deterministic: bool = False
    """Whether equal trainings must give equal bits on GPUs too, where that takes longer."""
    node_copies: str | None = None
    """Folder on each node for copies of what trainings read; None reads from the store itself."""
    node_copies_budget: int | None = None
    """Bytes that they may take on a node; None lets them fill its disk, but for a little."""
    price_per_hour: float | None = None
    """Of one node, in whatever currency; None to say nothing of money."""
    rescan: bool = False
    """Whether the dataset's files are read again, though they look as they did when they were prepared."""
    keep_students: str = KEEP_STUDENTS[0]
    """Which students' weights stay once the search has ended: chosen, those that it needs, or all."""
    prepared: str | None = None
    """Key of the prepared dataset in the store, where its source need not be at hand; None to look at the source."""

    def __post_init__(self) -> None:
        if self.keep_students not in KEEP_STUDENTS:
            raise UserError(unknown_name("value of keep_students", self.keep_students, KEEP_STUDENTS))

    @property
    def copies(self) -> Copies | None:
        """Where each node keeps its copies."""
        return None if self.node_copies is None else Copies(Path(self.node_copies), self.node_copies_budget)


OF_ONE_LAUNCH = ("retry_failed", "extend", "rescan", "max_seconds", "max_trials")


def recorded_options(search: SearchRecord, *, mlflow_uri: str | None, **of_this_launch: Any) -> LaunchOptions:
    """The options that a search was launched with, from its record; its images are those that it has seen.

    Args:
        search: its record.
        mlflow_uri: MLflow's address with its password; None for the recorded one, which has none.
        of_this_launch: those of `OF_ONE_LAUNCH`, which no record decides.

    Raises:
        UserError: the recorded address of MLflow had a password.
    """
    known = {field.name for field in fields(LaunchOptions)}
    recorded = {name: value for name, value in search.options.items() if name in known}
    address = mlflow_uri if mlflow_uri is not None else recorded.get("mlflow_uri")
    if mlflow_uri is None and search.options.get("mlflow_password") and "MLFLOW_TRACKING_PASSWORD" not in os.environ:
        raise UserError(
            f"The search '{search.search}' is recorded in MLflow at '{address}', whose password is not kept; give the "
            "whole address with --mlflow-uri."
        )
    return LaunchOptions(
        **recorded
        | {
            "name": search.search,
            "mlflow_uri": address,
            "prepared": search.dataset["prepared"],
        }
        | dict.fromkeys(OF_ONE_LAUNCH)
        | {"retry_failed": False, "extend": False, "rescan": False}
        | of_this_launch,
    )
