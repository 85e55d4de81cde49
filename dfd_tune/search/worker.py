"""What runs inside Ray: one job at a time, in a Tune actor that is reused.

What comes of a job, a failure too, is the last thing that is reported, as one JSON object. Not for: what is done for a
job (tasks.py), or which jobs run (agenda.py).
"""

from __future__ import annotations

import dataclasses
import os
import resource
import socket
from functools import partial
from pathlib import Path
from typing import Any

import torch

from dfd_tune.distill.arithmetic import compute
from dfd_tune.distill.checkpoints import training_name
from dfd_tune.search.context import SearchContext, StoppedError
from dfd_tune.search.joblog import job_log, note, warnings_told
from dfd_tune.search.jobs import Attempt
from dfd_tune.search.process import TuneProcess, report
from dfd_tune.search.tasks import RUN, failure_in


def run_job(point: dict[str, Any], context: SearchContext) -> None:
    """The Tune trainable: do the job of the attempt that `point` holds, and report what came of it."""
    from ray import tune

    attempt: Attempt = point["attempt"]
    job = attempt.job
    tell = partial(report, tune.report)
    process = TuneProcess(torch.device(context.resources.device), tell)
    tell(started=_whereabouts(context))
    with job_log(context.store, context.search, attempt), warnings_told(tell):
        try:
            compute(deterministic=context.deterministic)  # first, as CUDA reads some of it when it begins
            _forget_memory_of_earlier_jobs()
            done = {"outcome": "done"} | RUN[job.kind](job, context, process, attempt)
            failure = None
        except StoppedError:
            early = job.kind == "trial" and context.ends_early(training_name("trials", job.key))
            done, failure = {"outcome": "early" if early else "stopped"}, None
        except Exception as error:
            failure = failure_in(error, process.epoch, context.shared_folder)
            note(failure.error)
            done = {"outcome": "failed", "failure": dataclasses.asdict(failure)}
    tell(**done, peak_memory_bytes=_peak_memory())
    if failure is not None and failure.fault == "machine":
        # The process ends with its trial: what is wrong with the machine may have spoilt it.
        raise RuntimeError(f"{attempt}: {failure.cause}")


def _whereabouts(context: SearchContext) -> dict[str, Any]:
    import ray

    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "node": ray.get_runtime_context().get_node_id(),
        "device": context.resources.device,
    }


def _forget_memory_of_earlier_jobs() -> None:
    """Begin to measure anew, as a reused process has the peak of earlier jobs behind it; and give back what torch keeps
    of theirs, for which those that share the GPU may have a use."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
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
