"""What runs inside Ray: one job at a time in a reused Tune actor, with Ray Train around `train_student`.

A trial of one worker runs in Ray Train's local mode, in the Tune actor itself; one of several runs as a Ray Train
worker group. Both call the same training function through the same seam (distill/process.py). What comes of a job, a failure
too, is the last thing that is reported, as one JSON object. Not for: deciding which jobs run (agenda.py).
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, Literal

import torch

from dfd_tune.config import FrontendConfig, PretrainedConfig, TrialConfig
from dfd_tune.distill.checkpoints import Checkpoints, Snapshot
from dfd_tune.distill.process import Process
from dfd_tune.distill.student import TrialResult, find_result, save_result, student_file, student_there, train_student
from dfd_tune.distill.testing import network_test_accuracy, probabilities_on_test_images
from dfd_tune.distill.workbench import BankPlan, Workbench
from dfd_tune.liveness import stop_asked
from dfd_tune.record import FrontendRecord, TeacherRecord, test_record
from dfd_tune.search.capacity import Resources
from dfd_tune.search.faults import Failure, failure_of, lost_process
from dfd_tune.search.jobs import Attempt, Job
from dfd_tune.store import Store

REPORT = "dfd"
"""Name under which every report carries what it says: a JSON object, so that Tune looks for nothing in it."""
TUNE_DRIVER_CPUS = 0.01
"""A trial with a worker group only waits in its Tune actor; holding a whole CPU, it would starve its workers. They
give this much up, so that trials sized to fill the machine still fit."""

SHOWN = ("loss", "val_loss", "val_accuracy", "psnr", "ssim")
"""What of an epoch's metrics stands in the job's log."""

Outcome = Literal["done", "failed", "stopped"]


class StoppedError(Exception):
    """The search was asked to stop, and this job's checkpoint is written."""


@dataclass(frozen=True)
class SearchContext:
    """What all jobs of a search share; sent to every process."""

    store_root: str
    search: str
    dataset_key: str
    banks: tuple[tuple[str, BankPlan], ...]
    """By teacher key; a tuple, so that a context can be looked up."""
    resources: Resources
    checkpoint_seconds: float

    @property
    def store(self) -> Store:
        """The store, as this process sees it."""
        return Store(Path(self.store_root))

    def workbench(self, threads: int) -> Workbench:
        """This process's workbench for the search; made at the first job, then reused."""
        torch.set_num_threads(threads)
        return _workbench(self.store_root, self.dataset_key, self.banks, self.resources.device, self.checkpoint_seconds)

    def stopping(self) -> bool:
        """Whether somebody has asked the search to stop."""
        return stop_asked(self.store, self.search)


def run_job(point: dict[str, Any], context: SearchContext) -> None:
    """The Tune trainable: do the job of the attempt that `point` holds, and report what came of it."""
    from ray import tune

    attempt: Attempt = point["attempt"]
    job = attempt.job
    report = partial(_report, tune.report)
    process = TuneProcess(torch.device(context.resources.device), report)
    report(started=_whereabouts(context))
    with job_log(context, attempt), _warnings_told(report):
        try:
            _forget_peak_memory()
            done = {"outcome": "done"} | _RUN[job.kind](job, context, process, attempt)
            failure = None
        except StoppedError:
            done, failure = {"outcome": "stopped"}, None
        except Exception as error:
            failure = _failure(error, process.epoch)
            _note(failure.error)
            done = {"outcome": "failed", "failure": dataclasses.asdict(failure)}
    report(**done, peak_memory_bytes=_peak_memory())
    if failure is not None and failure.fault == "machine":
        # The process ends with its trial: what is wrong with the machine may have spoilt it.
        raise RuntimeError(f"{attempt}: {failure.cause}")


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
            _note(
                f"epoch {self.epoch}: " + ", ".join(f"{name} {metrics[name]:.4g}" for name in SHOWN if name in metrics)
            )
        self.send(epoch=dict(metrics))

    def resumed(self, history: list[dict[str, float]]) -> None:
        """Report that training goes on after these epochs."""
        self.epoch = len(history)
        if self.rank == 0:
            _note(f"going on after epoch {self.epoch}")
        self.send(resumed=history)


class StoppableCheckpoints(Checkpoints):
    """Checkpoints that are due when the search is to stop, and end the training then."""

    def __init__(self, context: SearchContext, key: str):
        super().__init__(
            context.store, key, every_seconds=context.checkpoint_seconds, stop_asked=context.stopping, say=_note
        )
        self._stopping = context.stopping

    def save(self, snapshot: Snapshot) -> None:
        """Write a checkpoint; then, if that was asked for, end."""
        super().save(snapshot)
        if self._stopping():
            raise StoppedError


def _train(job: Job, context: SearchContext, process: TuneProcess, attempt: Attempt) -> dict[str, Any]:
    """A student trained, or its result handed on where the store has it already."""
    found = find_result(context.store, job.key, say=_note)
    if found is not None and (not job.weights or student_there(context.store, job.key)):
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
    checkpoints = StoppableCheckpoints(context, f"trials-{job.key}")
    student, result = train_student(job.config, bench, process, checkpoints)
    if process.rank == 0:
        save_result(student, result, job.config, bench)
        checkpoints.clear()
    return {"result": result.to_json()}


def _train_in_a_group(job: Job, context: SearchContext, attempt: Attempt) -> dict[str, Any]:
    from ray import train, tune
    from ray.train import FailureConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    def loop() -> dict[str, Any]:
        where = train.get_context()
        process = TuneProcess(
            device=train.torch.get_device(),
            send=partial(_report, train.report),
            rank=where.get_world_rank(),
            world_size=where.get_world_size(),
        )
        with job_log(context, attempt):
            try:
                return train_and_publish(job, context, process)
            except StoppedError:
                raise
            except Exception as error:
                # Told here, where the traceback is, in a form that survives the way through Ray Train.
                raise RankFailedError(json.dumps(dataclasses.asdict(_failure(error, process.epoch)))) from None

    resources = context.resources
    per_worker = {"CPU": resources.cpus - TUNE_DRIVER_CPUS} | ({"GPU": resources.gpus} if resources.gpus else {})
    result = TorchTrainer(
        loop,
        scaling_config=ScalingConfig(
            num_workers=job.workers,
            use_gpu=resources.gpus > 0,
            resources_per_worker=per_worker,
            label_selector=elsewhere(attempt.avoid),
        ),
        run_config=RunConfig(
            name=tune.get_context().get_trial_id(),
            storage_path=str(Path(tune.get_context().get_trial_dir()) / "train"),
            failure_config=FailureConfig(max_failures=0),
            callbacks=[TuneReportCallback()],
        ),
    ).fit()
    return dict(result.return_value)


class RankFailedError(Exception):
    """A worker of a group failed; its text is the failure as JSON."""


def _failure(error: Exception, epoch: int) -> Failure:
    """What an exception says; of a worker group, what its ranks' say, the trial's own fault before the machine's."""
    ranks = getattr(error, "worker_failures", None)
    if not ranks:
        return failure_of(error, epoch)
    found = [_failure_of_rank(failure) for failure in ranks.values()]
    order = ("trial", "unknown", "machine")
    return min(found, key=lambda failure: order.index(failure.fault))


def _failure_of_rank(error: BaseException) -> Failure:
    cause = getattr(error, "cause", None) or error
    if type(cause).__name__ == StoppedError.__name__:
        raise StoppedError
    if type(cause).__name__ == RankFailedError.__name__:
        text = str(cause)
        return Failure(**json.loads(text[text.index("{") : text.rindex("}") + 1]))
    if type(cause).__module__.startswith("ray."):
        return lost_process(cause)
    return failure_of(cause)


def _prepare_network(job: Job, context: SearchContext, process: TuneProcess, _: Attempt) -> dict[str, Any]:
    assert isinstance(job.config, PretrainedConfig)
    started = time.perf_counter()
    bench = context.workbench(context.resources.threads(job.kind))
    found, trained, filled = bench.prepare(job.config, process)
    record = TeacherRecord(
        key=found.key,
        role=found.config.role,
        backbone=found.config.network.backbone,
        width=found.config.network.width,
        val_accuracy=found.val_accuracy,
    )
    return _prepared(record, trained, filled, started)


def _prepare_frontend(job: Job, context: SearchContext, process: TuneProcess, _: Attempt) -> dict[str, Any]:
    assert isinstance(job.config, FrontendConfig)
    started = time.perf_counter()
    bench = context.workbench(context.resources.threads(job.kind))
    found, trained = bench.prepare_frontend(job.config, process)
    record = FrontendRecord(
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
    return _prepared(record, trained, False, started)


def _prepared(record: TeacherRecord | FrontendRecord, trained: bool, filled: bool, started: float) -> dict[str, Any]:
    seconds = time.perf_counter() - started
    return {"record": dataclasses.asdict(record), "trained": trained, "filled": filled, "seconds": seconds}


def _test(job: Job, context: SearchContext, process: TuneProcess, _: Attempt) -> dict[str, Any]:
    assert isinstance(job.config, TrialConfig)
    bench = context.workbench(context.resources.threads(job.kind))
    file = student_file(context.store, job.key)
    probabilities, labels = probabilities_on_test_images(file, job.config, bench)
    return {"test": dataclasses.asdict(test_record(job.key, probabilities.argmax(1) == labels))}


def _test_network(job: Job, context: SearchContext, process: TuneProcess, _: Attempt) -> dict[str, Any]:
    assert isinstance(job.config, PretrainedConfig)
    bench = context.workbench(context.resources.threads(job.kind))
    return {"accuracy": network_test_accuracy(job.config, bench)}


_RUN: dict[str, Callable[[Job, SearchContext, TuneProcess, Attempt], dict[str, Any]]] = {
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


@contextmanager
def job_log(context: SearchContext, attempt: Attempt) -> Iterator[None]:
    """All that this process writes goes to the job's own log in the search's folder while the block lasts."""
    folder = context.store.path("searches", context.search, "logs")
    folder.mkdir(parents=True, exist_ok=True)
    job = attempt.job
    name = f"{job.key}.log" if job.kind == "trial" else f"{job.kind}-{job.key}.log"
    now = time.strftime("%Y-%m-%d %H:%M:%S")
    with (folder / name).open("ab", buffering=0) as log:
        log.write(f"--- {now} attempt {attempt.number} on {socket.gethostname()}, process {os.getpid()}\n".encode())
        sys.stdout.flush()
        sys.stderr.flush()
        kept = [os.dup(number) for number in (1, 2)]
        try:
            for number in (1, 2):
                os.dup2(log.fileno(), number)
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for number, original in zip((1, 2), kept, strict=True):
                os.dup2(original, number)
                os.close(original)


@contextmanager
def _warnings_told(report: Callable[..., None]) -> Iterator[None]:
    """What this program warns of, as on whom it waits, reaches who looks at the launch, not the job's log alone."""
    logger, handler = logging.getLogger("dfd_tune"), _Telling(report)
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


class _Telling(logging.Handler):
    """Hands warnings on as reports."""

    def __init__(self, report: Callable[..., None]):
        super().__init__(logging.WARNING)
        self._report = report

    def emit(self, record: logging.LogRecord) -> None:
        """Hand a warning on."""
        _note(record.getMessage())
        self._report(warning=record.getMessage())


def _note(line: str) -> None:
    """Write a line to the job's log."""
    sys.stderr.write(f"{line}\n")


def _report(send: Callable[[dict[str, Any]], None], **told: Any) -> None:
    send({REPORT: json.dumps(told)})


def _whereabouts(context: SearchContext) -> dict[str, Any]:
    import ray

    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "node": ray.get_runtime_context().get_node_id(),
        "device": context.resources.device,
    }


def _forget_peak_memory() -> None:
    """Begin to measure anew: a reused process has the peak of earlier jobs behind it."""
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets VmHWM: https://docs.kernel.org/filesystems/proc.html
    except OSError:
        return


def _peak_memory() -> int:
    """Bytes: of the GPU where one is used, else of this process."""
    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        status = Path("/proc/self/status").read_text()
        return 1024 * int(status.split("VmHWM:")[1].split()[0])
    except (OSError, IndexError):
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@lru_cache(maxsize=1)
def _workbench(
    store_root: str, dataset_key: str, banks: tuple[tuple[str, BankPlan], ...], device: str, checkpoint_seconds: float
) -> Workbench:
    return Workbench(
        Store(Path(store_root)),
        dataset_key,
        dict(banks),
        torch.device(device),
        checkpoint_seconds=checkpoint_seconds,
        say=_note,
    )
