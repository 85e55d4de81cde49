"""What runs inside Ray: one trial as a Tune trainable, with Ray Train around `train_student`.

A trial of one worker runs in Ray Train's local mode, in the Tune actor itself, which is reused; one of several
runs as a Ray Train worker group. Both call the same training function through the same seam (distill/process.py).
Not for: deciding which trials run (driver.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from dfd_tune.distill.process import EpochMetrics, Process
from dfd_tune.distill.student import find_result, save_result, train_student
from dfd_tune.distill.workbench import BankPlan, Workbench
from dfd_tune.search.runtime import TrialResources
from dfd_tune.settings import Request
from dfd_tune.store import Store

TRIAL_KEY = "trial_key"
"""Name under which every report carries the trial key."""
TUNE_DRIVER_CPUS = 0.01
"""A trial with a worker group only waits in its Tune actor; holding a whole CPU, it would starve its workers. They
give this much up, so that trials sized to fill the machine still fit."""


@dataclass(frozen=True)
class TrialContext:
    """What all trials of a search share; sent to every worker."""

    store_root: str
    dataset_key: str
    banks: tuple[tuple[str, BankPlan], ...]
    """By teacher key; a tuple, so that a context can be looked up."""
    request: Request
    resources: TrialResources

    def workbench(self) -> Workbench:
        """This process's workbench for the search; made at the first trial, then reused."""
        torch.set_num_threads(self.resources.threads)
        return _workbench(self.store_root, self.dataset_key, self.banks, self.resources.device)


def run_trial(point: dict[str, Any], context: TrialContext) -> None:
    """The Tune trainable: train the trial at `point`, or hand on its result where the store has it already."""
    from ray import tune

    config = context.request.trial(point)
    store = Store(Path(context.store_root))
    dataset_digest = context.workbench().dataset.digest
    key = config.key(dataset_digest)
    found = find_result(store, key)
    if found is not None:
        tune.report({TRIAL_KEY: key, "epoch": config.epochs, **found.metrics})
        return
    if config.workers == 1:
        _run_local(point, context)
    else:
        _run_worker_group(point, context)


def train_and_publish(point: dict[str, Any], context: TrialContext, process: Process) -> None:
    """One worker's part of a trial; rank 0 publishes the result."""
    workbench = context.workbench()
    config = context.request.trial(point)
    student, result = train_student(config, workbench, process)
    if process.rank == 0:
        save_result(student, result, config, workbench)


@dataclass(frozen=True)
class TuneProcess:
    """A process of its own inside a Tune trial."""

    device: torch.device
    key: str
    rank: int = 0
    world_size: int = 1

    def report(self, metrics: Mapping[str, float]) -> None:
        """Report to Tune."""
        from ray import tune

        tune.report({TRIAL_KEY: self.key, **metrics})

    def resumed(self, history: list[EpochMetrics]) -> None:
        """Nothing is told of epochs that were reported before."""


@dataclass(frozen=True)
class TrainProcess:
    """One of several Ray Train workers."""

    device: torch.device
    key: str
    rank: int
    world_size: int

    def report(self, metrics: Mapping[str, float]) -> None:
        """Report to Ray Train, which hands rank 0's metrics on to Tune."""
        from ray import train

        train.report({TRIAL_KEY: self.key, **metrics})

    def resumed(self, history: list[EpochMetrics]) -> None:
        """Nothing is told of epochs that were reported before."""


def _run_local(point: dict[str, Any], context: TrialContext) -> None:
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer

    def loop() -> None:
        process = TuneProcess(torch.device(context.resources.device), _key(point, context))
        train_and_publish(point, context, process)

    TorchTrainer(loop, scaling_config=ScalingConfig(num_workers=0)).fit()


def _run_worker_group(point: dict[str, Any], context: TrialContext) -> None:
    from ray import train, tune
    from ray.train import RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    def loop() -> None:
        where = train.get_context()
        process = TrainProcess(
            device=train.torch.get_device(),
            key=_key(point, context),
            rank=where.get_world_rank(),
            world_size=where.get_world_size(),
        )
        train_and_publish(point, context, process)

    resources = context.resources
    per_worker = {"CPU": resources.cpus - TUNE_DRIVER_CPUS} | ({"GPU": resources.gpus} if resources.gpus else {})
    TorchTrainer(
        loop,
        scaling_config=ScalingConfig(
            num_workers=context.request.settings["workers"],
            use_gpu=resources.gpus > 0,
            resources_per_worker=per_worker,
        ),
        run_config=RunConfig(
            name=tune.get_context().get_trial_id(),
            storage_path=str(Path(tune.get_context().get_trial_dir()) / "train"),
            callbacks=[TuneReportCallback()],
        ),
    ).fit()


def _key(point: dict[str, Any], context: TrialContext) -> str:
    return context.request.trial(point).key(context.workbench().dataset.digest)


@lru_cache(maxsize=1)
def _workbench(store_root: str, dataset_key: str, banks: tuple[tuple[str, BankPlan], ...], device: str) -> Workbench:
    return Workbench(Store(Path(store_root)), dataset_key, dict(banks), torch.device(device))
