"""Before the search: every teacher, front end and base network trained once, and every bank filled once.

In three rounds, as SRGAN looks at a teacher and a base network may look through a front end; each round in parallel.
Not for: how one is trained (distill/pretrained.py, distill/frontends.py).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from dfd_tune.config import FrontendConfig, PretrainedConfig
from dfd_tune.distill.frontends import TrainedFrontend
from dfd_tune.distill.pretrained import Pretrained
from dfd_tune.distill.process import SingleProcess
from dfd_tune.distill.training import DivergedError
from dfd_tune.errors import UserError
from dfd_tune.plan import PlannedFrontend, PlannedNetwork
from dfd_tune.record import FrontendRecord, TeacherRecord
from dfd_tune.search.worker import TrialContext

Record = TeacherRecord | FrontendRecord


@dataclass(frozen=True)
class Prepared:
    """What a task tells of a network it made sure of."""

    record: Record
    trained: bool
    filled: bool
    seconds: float


def teach(
    networks: Sequence[PlannedNetwork],
    frontends: Sequence[PlannedFrontend],
    context: TrialContext,
    say: Callable[[str], None],
) -> tuple[list[TeacherRecord], list[FrontendRecord]]:
    """Make sure of all networks, their banks and the front ends, one Ray task each; returns their records in order.

    Raises:
        UserError: a network's training diverged, so that its recipe must be changed; or VGG-19's file is damaged.
    """
    teachers = [network.config for network in networks if network.config.role == "teacher"]
    bases = [network.config for network in networks if network.config.role == "base"]
    done: dict[str, Record] = {}
    for configs in (teachers, [frontend.config for frontend in frontends], bases):
        done |= _round(configs, context, say)
    records = [done[key] for key in (*(network.key for network in networks), *(front.key for front in frontends))]
    return (
        [record for record in records if isinstance(record, TeacherRecord)],
        [record for record in records if isinstance(record, FrontendRecord)],
    )


def _round(
    configs: Sequence[PretrainedConfig | FrontendConfig], context: TrialContext, say: Callable[[str], None]
) -> dict[str, Record]:
    """Records by key, once all of `configs` are there."""
    import ray

    prepare = ray.remote(num_cpus=context.resources.cpus, num_gpus=context.resources.gpus, max_retries=2)(_prepare)
    tasks = {prepare.remote(config, context): config for config in configs}
    done: dict[str, Record] = {}
    waiting = list(tasks)
    while waiting:
        ready, waiting = ray.wait(waiting, num_returns=1)
        config = tasks[ready[0]]
        try:
            prepared: Prepared = ray.get(ready[0])
        except DivergedError as error:
            settings = "frontend_" if isinstance(config, FrontendConfig) else "teacher_"
            raise UserError(f"{_title(config)}: {_cause(error)} (Its settings begin with `{settings}`.)") from None
        except UserError as error:
            raise UserError(f"{_title(config)}: {_cause(error)}") from None
        done[prepared.record.key] = prepared.record
        say(_line(config, prepared))
    return done


def _prepare(config: PretrainedConfig | FrontendConfig, context: TrialContext) -> Prepared:
    import time

    started = time.perf_counter()
    process = SingleProcess(torch.device(context.resources.device))
    bench = context.workbench()
    if isinstance(config, FrontendConfig):
        frontend, trained = bench.prepare_frontend(config, process)
        return Prepared(frontend_record(frontend), trained, False, time.perf_counter() - started)
    found, trained, filled = bench.prepare(config, process)
    return Prepared(network_record(found), trained, filled, time.perf_counter() - started)


def network_record(found: Pretrained) -> TeacherRecord:
    """What a search keeps of a teacher or base network."""
    return TeacherRecord(
        key=found.key,
        role=found.config.role,
        backbone=found.config.network.backbone,
        width=found.config.network.width,
        val_accuracy=found.val_accuracy,
    )


def frontend_record(found: TrainedFrontend) -> FrontendRecord:
    """What a search keeps of a front end."""
    return FrontendRecord(
        key=found.key,
        kind=found.config.kind,
        size=found.config.size,
        resolution=found.config.camera.resolution,
        camera=dataclasses.asdict(found.config.camera),
        content=found.content,
        psnr=found.psnr,
        ssim=found.ssim,
        bicubic_psnr=found.bicubic_psnr,
        bicubic_ssim=found.bicubic_ssim,
    )


def _title(config: PretrainedConfig | FrontendConfig) -> str:
    if isinstance(config, FrontendConfig):
        return f"Front end {config.kind}"
    return f"{'Teacher' if config.role == 'teacher' else 'Base network'} {config.network.backbone}"


def _line(config: PretrainedConfig | FrontendConfig, prepared: Prepared) -> str:
    how = f"trained in {prepared.seconds:.0f} s" if prepared.trained else "from the store"
    record = prepared.record
    if isinstance(record, FrontendRecord):
        content = f", content loss on features of {record.content}" if record.content else ""
        return (
            f"{_title(config)}: {how}{content}, PSNR {record.psnr:.2f} dB (bicubic {record.bicubic_psnr:.2f}), "
            f"SSIM {record.ssim:.3f} (bicubic {record.bicubic_ssim:.3f})"
        )
    bank = ", feature bank filled" if prepared.filled else ""
    return f"{_title(config)}: {how}{bank}, validation accuracy {record.val_accuracy:.1%}"


def _cause(error: BaseException) -> str:
    return str(getattr(error, "cause", None) or error).strip().split("\n")[-1]
