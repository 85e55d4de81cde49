"""Trials through the real driver, worker and books on a Ray that is told of a GPU, of which some want more memory.

They train on the CPU, and a made-up GPU's memory runs out after two epochs of theirs where their share is too small.
What was seen comes out as JSON.

python -m tests.search.short_of_memory STORE
"""

import io
import json
import logging
import sys
import time
from pathlib import Path

import torch
from rich.console import Console

from dfd_tune.record import load_trials
from dfd_tune.schedulers import NEVER
from dfd_tune.search.agenda import Agenda
from dfd_tune.search.books import SearchBooks
from dfd_tune.search.capacity import Cluster, Resources, ray_nodes
from dfd_tune.search.context import SearchContext
from dfd_tune.search.early_stopping import EarlyStopping
from dfd_tune.search.jobs import trial_job
from dfd_tune.search.ledger import Ledger
from dfd_tune.search.process import TuneProcess
from dfd_tune.search.progress import Progress
from dfd_tune.search.runtime import RayRuntime
from dfd_tune.search.screen import Terminal
from dfd_tune.search.shares import Shares
from dfd_tune.signals import Signals
from tests.distill.tiny import fresh_store, trial, without_times, workbench
from tests.distill.tiny import run as run_alone
from tests.report.conftest import SilentTracker
from tests.report.searches import make_request, make_search
from tests.search.test_shares import NoPoints

PLANNED = 0.5
NEEDS = {0.125: 0.2, 0.25: 0.6, 0.375: 1.1}
"""Width -> the share of a GPU whose memory does."""
TRIALS = ((0.25, 0), (0.375, 0), (0.125, 0), (0.25, 1))
"""Width and seed, in their order; two at once."""
FULL_FROM_EPOCH = 2


def job_short_of_memory(point, context):
    """As run_job, with a GPU whose memory runs out."""
    import ray

    from dfd_tune.search.worker import run_job

    job = point["attempt"].job
    share = context.resources.gpus if job.gpus is None else job.gpus
    assert ray.get_runtime_context().get_assigned_resources()["GPU"] == share
    report = TuneProcess.report

    def report_or_fail(process, metrics):
        report(process, metrics)
        if metrics["epoch"] >= FULL_FROM_EPOCH and share < NEEDS[job.config.width]:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    TuneProcess.report = report_or_fail
    try:
        run_job(point, context)
    finally:
        TuneProcess.report = report


class WithGpu(RayRuntime):
    """A Ray of this process's own that is told of a GPU."""

    def _init(self):
        import ray

        ray.init(
            num_cpus=4,
            num_gpus=1,
            object_store_memory=100_000_000,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )


class Unmeasured:
    """Of how long it takes nobody asks."""

    def epoch(self, job, metrics):
        pass


def main():
    """See above."""
    store = fresh_store(Path(sys.argv[1]))
    digest = workbench(store).dataset.digest
    configs = [trial(lambda_=0.0, epochs=4, seed=seed, width=width) for width, seed in TRIALS]
    resources = Resources("cpu", 1.0, PLANNED, 1.0)
    search = make_search(make_request({"width": [0.125, 0.25, 0.375], "seed": [0, 1]}), {})
    screen = io.StringIO()
    progress = Progress(Terminal(Console(file=screen, width=200)), len(configs), ["width", "seed"])
    ledger = Ledger(store, search, [], SilentTracker(), digest, progress)
    jobs = [trial_job(config, config.key(digest), digest) for config in configs]
    agenda = Agenda(jobs, NoPoints(), lambda *_: None, list, 0, Shares(resources.gpus))
    lines = []
    context = SearchContext(str(store.root), search.search, "tiny", (), resources, checkpoint_seconds=0.0)
    with Signals() as signals, WithGpu(store.path("ray.log"), signals) as ray:
        ray.start()
        from dfd_tune.search.driver import run

        cluster = Cluster(resources, ray_nodes)
        early = EarlyStopping(NEVER, 4, [], lines.append)
        books = SearchBooks(
            ledger, agenda, [], cluster, progress, Unmeasured(), early, lambda: None, lines.append, time.monotonic
        )
        run(agenda, cluster, context, books, trainable=job_short_of_memory)
    trials = {
        f"{record.config['width']:g}, {record.config['seed']}": {
            "status": record.status,
            "gpus": record.gpus,
            "attempts": record.attempts,
            "cause": record.cause,
            "fault": record.fault,
            "history": without_times(record.history),
        }
        for record in load_trials(store, search)
    }
    alone = {
        f"{config.width:g}, {config.seed}": without_times(run_alone(config, workbench(store))[1].history)
        for config in configs
    }
    sys.stdout.write(json.dumps({"trials": trials, "lines": lines, "alone": alone}) + "\n")


if __name__ == "__main__":
    main()
