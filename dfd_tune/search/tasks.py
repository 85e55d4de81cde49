"""What is done for each kind of job, with Ray Train around `train_student`.

A trial of one worker runs in Ray Train's local mode, in the Tune actor itself; one of several runs as a Ray Train
worker group. Both call the same training function through the same seam (distill/process.py). Not for: reporting how it
went (worker.py).
"""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from dfd_tune.config import TrialConfig
from dfd_tune.distill.arithmetic import compute
from dfd_tune.distill.frontends import TrainedFrontend
from dfd_tune.distill.pretrained import Pretrained
from dfd_tune.distill.process import Process
from dfd_tune.distill.student import (
    TrialResult,
    find_result,
    measured_anew,
    save_result,
    student_file,
    student_there,
    train_student,
)
from dfd_tune.distill.testing import by_class, network_on_test_images, probabilities_on_test_images
from dfd_tune.distill.workbench import Workbench
from dfd_tune.parts import FrontendConfig, Guide, ImportedConfig
from dfd_tune.record import FrontendRecord, TeacherRecord, test_record
from dfd_tune.search.context import SearchContext, StoppedError
from dfd_tune.search.faults import Failure, failure_of, lost_process
from dfd_tune.search.joblog import job_log, note
from dfd_tune.search.jobs import Attempt, Job
from dfd_tune.search.process import TuneProcess, report
from dfd_tune.store import BucketStore

TUNE_DRIVER_CPUS = 0.01
"""A trial with a worker group only waits in its Tune actor; holding a whole CPU, it would starve its workers. They
give this much up, so that trials sized to fill the machine still fit."""


def _train(job: Job, context: SearchContext, process: TuneProcess, attempt: Attempt) -> dict[str, Any]:
    """A student trained, or its result handed on where the store has it already."""
    found = find_result(context.store, job.key, say=note)
    kept = found is not None and student_there(context.store, job.key)
    lacks = found is not None and context.measures not in found.metrics
    if found is not None and lacks and kept:
        assert isinstance(job.config, TrialConfig)
        found = measured_anew(found, job.config, context.workbench(context.resources.threads("trial")))
    if found is not None and (kept or not (lacks or job.weights)):
        context.checkpoints("trials", job.key).clear()  # of somebody killed between publishing and clearing
        return {"result": found.to_json()}
    if job.workers == 1:
        return _train_here(job, context, process)
    return _train_in_a_group(job, context, attempt)


def _train_here(job: Job, context: SearchContext, process: TuneProcess) -> dict[str, Any]:
    from ray.train import ScalingConfig
    from ray.train.torch import TorchTrainer

    told: dict[str, Any] = {}
    TorchTrainer(
        lambda: told.update(train_and_publish(job, context, process)), scaling_config=ScalingConfig(num_workers=0)
    ).fit()
    return told


def train_and_publish(job: Job, context: SearchContext, process: Process) -> dict[str, Any]:
    """One worker's part of a trial; rank 0 publishes the result."""
    assert isinstance(job.config, TrialConfig)
    bench = context.workbench(context.resources.threads("trial"))
    checkpoints = bench.checkpoints_of("trials", job.key)
    student, result = train_student(job.config, bench, process, checkpoints)
    if process.rank == 0:
        save_result(student, result, job.config, bench, checkpoints)
    return {"result": result.to_json()}


def _train_in_a_group(job: Job, context: SearchContext, attempt: Attempt) -> dict[str, Any]:
    from ray import train, tune
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    def loop() -> dict[str, Any]:
        # Ray Train writes every report of every worker into the job's log, which has its own line an epoch.
        logging.getLogger("ray.train").setLevel(logging.WARNING)
        compute(deterministic=context.deterministic)
        where = train.get_context()
        process = TuneProcess(
            device=train.torch.get_device(),
            send=partial(report, train.report),
            rank=where.get_world_rank(),
            world_size=where.get_world_size(),
        )
        with job_log(context.store, context.search, attempt):
            try:
                return train_and_publish(job, context, process)
            except StoppedError:
                raise
            except Exception as error:
                # Told here, where the traceback is, in a form that survives the way through Ray Train.
                failure = failure_in(error, process.epoch, context.shared_folder)
                raise RankFailedError(json.dumps(dataclasses.asdict(failure))) from None

    resources = context.resources
    gpus = resources.gpus if job.gpus is None else job.gpus
    per_worker = {"CPU": resources.cpus - TUNE_DRIVER_CPUS} | ({"GPU": gpus} if gpus else {})
    folder = Path(tune.get_context().get_trial_dir()) / "train"
    trainer = TorchTrainer(
        loop,
        scaling_config=ScalingConfig(
            num_workers=job.workers,
            use_gpu=gpus > 0,
            resources_per_worker=per_worker,
            label_selector=elsewhere(attempt.avoid),
        ),
        run_config=RunConfig(
            name=tune.get_context().get_trial_id(),
            storage_path=str(folder),
            failure_config=FailureConfig(max_failures=0),
            callbacks=[TuneReportCallback()],
        ),
    )
    try:
        return dict(trainer.fit().return_value)
    except Exception as error:
        if any(type(_cause(rank)).__name__ == StoppedError.__name__ for rank in _ranks_of(error)):
            raise StoppedError from None  # the others lost the one that wrote the checkpoint
        raise
    finally:
        if isinstance(context.store, BucketStore):  # on this node's own disk, which the driver may not see
            shutil.rmtree(folder, ignore_errors=True)


class RankFailedError(Exception):
    """A worker of a group failed; its text is the failure as JSON."""


def failure_in(error: Exception, epoch: int, store: Path | None = None) -> Failure:
    """What an exception says, as `failure_of`; of a worker group, what its ranks' say, the trial's own fault before the
    machine's."""
    ranks = _ranks_of(error)
    if not ranks:
        return failure_of(error, epoch, store)
    found = [_failure_of_rank(failure) for failure in ranks]
    order = ("trial", "unknown", "machine")
    # Where one rank has too little memory, the others are left without it.
    return min(found, key=lambda failure: (order.index(failure.fault), not failure.gpu_memory))


def _ranks_of(error: Exception) -> list[BaseException]:
    """The exceptions of a worker group's ranks; none of a single process."""
    return list((getattr(error, "worker_failures", None) or {}).values())


def _cause(error: BaseException) -> BaseException:
    cause: BaseException = getattr(error, "cause", None) or error
    return cause


def _failure_of_rank(error: BaseException) -> Failure:
    cause = _cause(error)
    if type(cause).__name__ == RankFailedError.__name__:
        text = str(cause)
        return Failure(**json.loads(text[text.index("{") : text.rindex("}") + 1]))
    if type(cause).__module__.startswith("ray."):
        return lost_process(cause)
    return failure_of(cause)


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What came of a network that is made before the search."""

    record: TeacherRecord | FrontendRecord
    trained: bool
    """Whether it was trained, or measured, now; else it lay in the store."""
    filled: bool
    """Whether its bank was filled now."""
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """As a JSON object."""
        return dataclasses.asdict(self)

    @classmethod
    def of_network(cls, told: Mapping[str, Any]) -> Prepared:
        """What `to_json` gave `told` for, of a teacher or base network."""
        return cls(TeacherRecord(**told["record"]), told["trained"], told["filled"], told["seconds"])

    @classmethod
    def of_frontend(cls, told: Mapping[str, Any]) -> Prepared:
        """Likewise, of a front end."""
        return cls(FrontendRecord(**told["record"]), told["trained"], told["filled"], told["seconds"])


def _prepare_network(job: Job, context: SearchContext, process: TuneProcess, _: Attempt) -> dict[str, Any]:
    assert isinstance(job.config, Guide)
    started = time.perf_counter()
    bench = context.workbench(context.resources.threads(job.kind))
    found, trained, filled = bench.prepare(job.config, process)
    return Prepared(network_record(found), trained, filled, time.perf_counter() - started).to_json()


def _prepare_frontend(job: Job, context: SearchContext, process: TuneProcess, _: Attempt) -> dict[str, Any]:
    assert isinstance(job.config, FrontendConfig)
    started = time.perf_counter()
    bench = context.workbench(context.resources.threads(job.kind))
    found, trained = bench.prepare_frontend(job.config, process)
    return Prepared(frontend_record(found), trained, False, time.perf_counter() - started).to_json()


def network_record(found: Pretrained) -> TeacherRecord:
    """What a search keeps of a teacher or base network."""
    config = found.config
    known = TeacherRecord(
        key=found.key,
        role=config.role,
        backbone=config.architecture,
        width=config.file.width if isinstance(config, ImportedConfig) else config.network.width,
        val_accuracy=found.val_accuracy,
    )
    if not isinstance(config, ImportedConfig):
        return known
    return dataclasses.replace(known, file=found.file, digest=config.file.digest, gives=config.file.gives)


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


def _test(job: Job, context: SearchContext, process: TuneProcess, _: Attempt) -> dict[str, Any]:
    assert isinstance(job.config, TrialConfig)
    bench = context.workbench(context.resources.threads(job.kind))
    file = student_file(context.store, job.key)
    probabilities, labels = probabilities_on_test_images(file, job.config, bench)
    return _tested(job, probabilities.argmax(1), labels, bench)


def _test_network(job: Job, context: SearchContext, process: TuneProcess, _: Attempt) -> dict[str, Any]:
    assert isinstance(job.config, Guide)
    bench = context.workbench(context.resources.threads(job.kind))
    return _tested(job, *network_on_test_images(job.config, bench), bench)


def _tested(job: Job, predicted: np.ndarray, labels: np.ndarray, bench: Workbench) -> dict[str, Any]:
    scores = by_class(predicted, labels, len(bench.dataset.classes))
    return {"test": dataclasses.asdict(test_record(job.key, predicted == labels, **scores))}


RUN: dict[str, Callable[[Job, SearchContext, TuneProcess, Attempt], dict[str, Any]]] = {
    "network": _prepare_network,
    "frontend": _prepare_frontend,
    "trial": _train,
    "test": _test,
    "reference": _test_network,
}
"""Kind of job -> what is done; returns what is told of it, JSON-able."""


def result_from(told: Mapping[str, Any]) -> TrialResult:
    """The result that a trial's last report holds: its file may not be visible here yet."""
    return TrialResult.from_json(told["result"])


def elsewhere(avoid: tuple[str, ...]) -> dict[str, str] | None:
    """Ray's label selector for every node but these; None where there are none to avoid."""
    return {"ray.io/node-id": f"!in({','.join(avoid)})"} if avoid else None
