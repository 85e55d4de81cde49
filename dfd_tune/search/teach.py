"""Before the search: every teacher and base network trained once, in parallel, and every bank filled once.

Not for: how one is trained (distill/pretrained.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from dfd_tune.config import PretrainedConfig
from dfd_tune.distill.process import SingleProcess
from dfd_tune.distill.training import DivergedError
from dfd_tune.errors import UserError
from dfd_tune.plan import PlannedNetwork
from dfd_tune.record import TeacherRecord
from dfd_tune.search.worker import TrialContext


@dataclass(frozen=True)
class Prepared:
    """What a task tells of a network it made sure of."""

    record: TeacherRecord
    trained: bool
    filled: bool
    seconds: float


def teach(networks: Sequence[PlannedNetwork], context: TrialContext, say: Callable[[str], None]) -> list[TeacherRecord]:
    """Make sure of all `networks` and their banks, one Ray task each; returns their records in that order.

    Raises:
        UserError: a network's training diverged; its recipe must be changed.
    """
    import ray

    prepare = ray.remote(num_cpus=context.resources.cpus, num_gpus=context.resources.gpus, max_retries=2)(_prepare)
    tasks = {prepare.remote(network.config, context): network for network in networks}
    done: dict[str, TeacherRecord] = {}
    waiting = list(tasks)
    while waiting:
        ready, waiting = ray.wait(waiting, num_returns=1)
        try:
            prepared: Prepared = ray.get(ready[0])
        except DivergedError as error:
            raise UserError(
                f"{_title(tasks[ready[0]].config)}: {_cause(error)} (Its settings begin with `teacher_`.)"
            ) from None
        done[prepared.record.key] = prepared.record
        say(_line(tasks[ready[0]].config, prepared))
    return [done[network.key] for network in networks]


def _prepare(config: PretrainedConfig, context: TrialContext) -> Prepared:
    import time

    started = time.perf_counter()
    process = SingleProcess(torch.device(context.resources.device))
    found, trained, filled = context.workbench().prepare(config, process)
    record = TeacherRecord(
        key=found.key,
        role=config.role,
        backbone=config.network.backbone,
        width=config.network.width,
        val_accuracy=found.val_accuracy,
    )
    return Prepared(record, trained, filled, time.perf_counter() - started)


def _title(config: PretrainedConfig) -> str:
    return f"{'Teacher' if config.role == 'teacher' else 'Base network'} {config.network.backbone}"


def _line(config: PretrainedConfig, prepared: Prepared) -> str:
    how = f"trained in {prepared.seconds:.0f} s" if prepared.trained else "from the store"
    bank = ", feature bank filled" if prepared.filled else ""
    return f"{_title(config)}: {how}{bank}, validation accuracy {prepared.record.val_accuracy:.1%}"


def _cause(error: BaseException) -> str:
    return str(getattr(error, "cause", None) or error).strip().split("\n")[-1]
