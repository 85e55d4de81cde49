"""Ray, started quietly and sized to the machine, and stopped without leaving a process.

Not for: what runs on it (teach.py, driver.py).
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dfd_tune.errors import UserError

TRIAL_MEMORY_BYTES = 1_500_000_000
"""What a trial's process is reckoned to take; bounds how many run at once where cores are many and memory is not."""
OBJECT_STORE_BYTES = 100_000_000
"""Results and configurations only: images and features are memory-mapped files."""


@dataclass(frozen=True)
class TrialResources:
    """What one worker of a trial gets, and how many trials run at once."""

    cpus: float
    gpus: float
    concurrent: int

    @property
    def threads(self) -> int:
        """Torch threads of a worker."""
        return max(1, int(self.cpus))

    @property
    def device(self) -> str:
        """Where a worker computes."""
        return "cuda" if self.gpus > 0 else "cpu"


@contextlib.contextmanager
def ray_runtime(log_folder: Path | None = None) -> Iterator[None]:
    """Ray on this machine, or on the cluster that RAY_ADDRESS names, for the length of the block.

    Raises:
        UserError: RAY_ADDRESS names a cluster that does not answer.
    """
    _quiet_environment()
    import ray

    address = os.environ.get("RAY_ADDRESS")
    # Ray puts handlers of its own, which end the process at once, in the place of ours; it is put back below.
    handler = signal.getsignal(signal.SIGTERM)
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    try:
        if address:
            ray.init(address=address, **quiet)
        else:
            ray.init(
                num_cpus=usable_cores(),
                object_store_memory=OBJECT_STORE_BYTES,
                include_dashboard=False,
                **quiet,
            )
    except ConnectionError as error:
        raise UserError(
            f"RAY_ADDRESS is '{address}', but no Ray cluster answers there ({str(error).splitlines()[0]}); start it, "
            "or unset RAY_ADDRESS to run on this machine."
        ) from None
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)
    try:
        yield
    finally:
        ray.shutdown()


def trial_resources(*, workers: int, cpus_per_worker: float | None, gpus_per_worker: float | None) -> TrialResources:
    """Size trials to the running Ray cluster: as many at once as fit, and at least one.

    Args:
        workers: processes of a trial.
        cpus_per_worker: None for one: on a CPU, two trials of one thread get more done than one trial of two.
        gpus_per_worker: None for a whole GPU where the cluster has any, else none.

    Raises:
        UserError: not even one trial fits.
    """
    import ray

    total = ray.cluster_resources()
    have_cpus, have_gpus = total.get("CPU", 0.0), total.get("GPU", 0.0)
    gpus = gpus_per_worker if gpus_per_worker is not None else float(have_gpus >= 1)
    cpus = cpus_per_worker if cpus_per_worker is not None else 1.0
    fits = [have_cpus / (cpus * workers)]
    if gpus > 0:
        fits.append(have_gpus / (gpus * workers))
    if min(fits) < 1:
        raise UserError(
            f"A trial of {workers} worker(s) with {cpus:g} CPU and {gpus:g} GPU each does not fit: Ray has "
            f"{have_cpus:g} CPUs and {have_gpus:g} GPUs; lower --workers-per-trial, --cpus-per-worker or "
            "--gpus-per-worker."
        )
    fits.append(max(1.0, total.get("memory", float("inf")) / (TRIAL_MEMORY_BYTES * workers)))
    return TrialResources(cpus=cpus, gpus=gpus, concurrent=int(min(fits)))


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quiet_environment() -> None:
    """What Ray reads from the environment when it is imported or started; a value already set is respected."""
    for name, value in {
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        # Under `uv run`, Ray would set up the project anew for every worker.
        "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
        "RAY_AIR_NEW_OUTPUT": "0",
        "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
        "RAY_TRAIN_METRICS_ENABLED": "0",
        "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        # Ctrl-C is ours: records are closed first, then Ray is stopped.
        "TUNE_DISABLE_SIGINT_HANDLER": "1",
        # The store is what a search resumes from; Tune's own snapshots would only be written and thrown away.
        "TUNE_GLOBAL_CHECKPOINT_S": "3600",
        "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    }.items():
        os.environ.setdefault(name, value)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for name in ("ray", "ray.tune", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
