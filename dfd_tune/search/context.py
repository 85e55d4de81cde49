"""What all jobs of a search share in a process: where its store is, what it may use, when it is to stop.

Not for: what a job does (tasks.py).
"""

from __future__ import annotations

import contextlib
import time
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path

import torch

from dfd_tune.criteria import CRITERIA, DEFAULT
from dfd_tune.distill.checkpoints import Checkpoints, Snapshot, training_name
from dfd_tune.distill.workbench import BankPlan, Workbench
from dfd_tune.liveness import stop_asked
from dfd_tune.own_backbones import run_those_of
from dfd_tune.search.capacity import Resources
from dfd_tune.search.joblog import note
from dfd_tune.store import LATE_SECONDS, Copies, FolderStore, Store, open_store

LOOK_SECONDS = 2.0
"""In a bucket, whether to stop is looked at no more often than this, as each look takes a round trip."""


def scratch(search: str) -> tuple[str, ...]:
    """Where in the store Ray Tune keeps what it needs while a search runs; whatever is there at a launch is a killed
    one's."""
    return "searches", search, ".tune"


def end_early(store: Store, search: str, training: str) -> None:
    """Have a training, by the key of its checkpoints, end at the epoch that it has reported."""
    store.write_text("", *_early_end(search, training))


def _early_end(search: str, training: str) -> tuple[str, ...]:
    """A file that is there once a training is to end early; gone with the launch that asked for it."""
    return *scratch(search), "early", training


class StoppedError(Exception):
    """The search, or this trial alone, was to stop, and its checkpoint is written."""


@dataclass(frozen=True)
class SearchContext:
    """What all jobs of a search share; sent to every process."""

    location: str
    """By which each process opens the store."""
    search: str
    dataset_key: str
    banks: tuple[tuple[str, BankPlan], ...]
    """By teacher key; a tuple, so that a context can be looked up."""
    resources: Resources
    checkpoint_seconds: float
    copies: Copies | None = None
    """Where each node keeps its own of what trainings read; None: they read from the store itself."""
    deterministic: bool = False
    """Whether equal runs must give equal bits, on GPUs too."""
    measures: str = CRITERIA[DEFAULT].column
    """What a trial's result must say, as the search chooses by it; results of older versions may not."""

    @property
    def store(self) -> Store:
        """The store, as this process sees it."""
        return _store(self.location, self.copies)

    @property
    def shared_folder(self) -> Path | None:
        """The store's folder, which all nodes share; None of a bucket, where each has one of its own."""
        return self.store.root if isinstance(self.store, FolderStore) else None

    def workbench(self, threads: int) -> Workbench:
        """This process's workbench for the search; made at the first job, then reused."""
        torch.set_num_threads(threads)
        run_those_of(self.store)
        return _workbench(self)

    def checkpoints(self, kind: str, key: str) -> Checkpoints:
        """Those of the training of a network of that kind."""
        return StoppableCheckpoints(self, training_name(kind, key))

    def stopping(self) -> bool:
        """Whether somebody has asked the search to stop."""
        if isinstance(self.store, FolderStore):
            return stop_asked(self.store, self.search)
        return _stop_asked_lately(self.store, self.search, int(time.monotonic() / LOOK_SECONDS))

    def ends_early(self, training: str) -> bool:
        """Whether a training, by the key of its checkpoints, is to end at the epoch that it has reported."""
        if isinstance(self.store, FolderStore):
            return _is_to_end_early(self.store, self.search, training)
        return _ends_early_lately(self.store, self.search, training, int(time.monotonic() / LOOK_SECONDS))


class StoppableCheckpoints(Checkpoints):
    """Checkpoints that are due when the search, or this training, is to stop, and end the training then."""

    def __init__(self, context: SearchContext, key: str):
        super().__init__(
            context.store,
            key,
            every_seconds=context.checkpoint_seconds,
            stop_asked=lambda: context.stopping() or context.ends_early(key),
            say=note,
        )

    def save(self, snapshot: Snapshot) -> None:
        """Write a checkpoint; then, if that was asked for, end."""
        super().save(snapshot)
        if self.stop_asked():
            raise StoppedError


@lru_cache(maxsize=4)
def _store(location: str, copies: Copies | None) -> Store:
    return open_store(location, copies)


@lru_cache(maxsize=1)
def _stop_asked_lately(store: Store, search: str, when: int) -> bool:
    """What was found at the first look of that stretch of time. Nothing, if the bucket was away: what must be written
    there says so."""
    with contextlib.suppress(OSError):
        return stop_asked(store, search)
    return False


@lru_cache(maxsize=1)
def _ends_early_lately(store: Store, search: str, training: str, when: int) -> bool:
    with contextlib.suppress(OSError):
        return _is_to_end_early(store, search, training)
    return False


def _is_to_end_early(store: Store, search: str, training: str) -> bool:
    return store.there(*_early_end(search, training))


@lru_cache(maxsize=1)
def _workbench(context: SearchContext) -> Workbench:
    return Workbench(
        context.store,
        context.dataset_key,
        dict(context.banks),
        torch.device(context.resources.device),
        checkpoints=partial(StoppableCheckpoints, context),
        patience=LATE_SECONDS,
    )
