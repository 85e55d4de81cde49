"""What the driver of a search costs a trial, at 300, 2,000 and 10,000 points, beside plain Ray Tune in the same run.

The real driver, agenda, points, ledger, progress and a real Ray on this machine with reused processes run jobs that
train nothing: each reports that it has started, one epoch, and a result. Then, on stores whose records are made up: a
relaunch with all finished up to where it sees that nothing is left, `results`, and the report. Each row is measured in
a process of its own and printed as one JSON line. Not for: how fast anything is trained, nor MLflow's writer
(mlflow_writer.py).

    uv run python benchmarks/driver_scale.py --quick
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import io
import json
import os
import platform
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

POINTS = (300, 2_000, 10_000)
SETTLED = 50
"""Rates and growth are taken from this trial on: before it, processes start and libraries are imported."""
CPUS = 2.0
SEEDS = 5
"""Of a grid."""


class SilentTracker:
    """In MLflow's place."""

    recorded_address = None
    has_password = False
    home = None

    def prepare(self) -> None:
        """At once."""

    def raise_if_refused(self) -> None:
        """Never."""

    def log_trial(self, search: Any, trial: Any) -> None:
        """Nothing."""

    def close(self, patience: float = 0.0) -> list[str]:
        """Nothing waits."""
        return []


@dataclasses.dataclass
class Meter:
    """Reads the clocks and this process's memory when a trial ends, at the first settled one and at the last."""

    ended: int = 0
    seen: list[tuple[int, float, float, float]] = dataclasses.field(default_factory=list)

    def tick(self, last: int) -> None:
        """A trial has ended."""
        self.ended += 1
        if self.ended in (SETTLED, last):
            self.seen.append((self.ended, time.perf_counter(), time.process_time(), resident_mb()))

    def figures(self) -> dict[str, float]:
        """Rates and costs a trial between the two readings."""
        (first, wall, cpu, memory), (last, wall_end, cpu_end, memory_end) = self.seen
        count = last - first
        return {
            "trials_per_s": round(count / (wall_end - wall), 2),
            "driver_cpu_ms_per_trial": round(1000 * (cpu_end - cpu) / count, 2),
            "driver_mb_per_trial": round((memory_end - memory) / count, 4),
        }


def resident_mb() -> float:
    """Resident memory of this process in MB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def request_of(sampler: str, points: int) -> Any:
    """A request of so many points: λ, the resolution and seeds, or λ and the learning rate from ranges.

    Nothing is confirmed, so that as many trials are run.
    """
    from dfd_tune.axes import Choice, Range
    from dfd_tune.confirm import NOTHING_ANEW
    from dfd_tune.data.sources import SOURCES
    from dfd_tune.settings import resolve
    from dfd_tune.space import SearchSpace

    if sampler == "grid":
        lambdas = tuple(round(0.1 * step, 1) for step in range(points // (2 * SEEDS)))
        explore: dict[str, Any] = {"resolution": Choice((4, 2)), "lambda_": Choice(lambdas)}
        explore["seed"] = Choice(tuple(range(SEEDS)))
    else:
        explore = {"lambda_": Range(0.05, 20.0, log=True), "learning_rate": Range(0.001, 1.0, log=True)}
    trials = None if sampler == "grid" else points
    space = SearchSpace("scale", "", sampler, explore, {"epochs": 1}, trials, confirm=NOTHING_ANEW)
    return resolve(space, dataset="digits", data=None, recipe=SOURCES["digits"].recipe)


def made_up(key: str, config: Any, digest: str) -> dict[str, Any]:
    """A trial's result as JSON, with numbers that its key decides."""
    draw = random.Random(key)
    metrics = {
        name: draw.random()
        for name in ("loss", "cross_entropy", "distillation", "train_accuracy", "val_accuracy", "val_loss")
    } | {"learning_rate": 0.1, "images_per_second": 1000.0}
    return {
        "key": key,
        "config": dataclasses.asdict(config),
        "dataset": digest,
        "teacher": None,
        "metrics": metrics | {"seconds": 1.0},
        "history": [{"epoch": 1.0} | metrics],
    }


def job_that_does_nothing(point: dict[str, Any], context: Any) -> None:
    """In the place of `worker.run_job`: the same reports, and no work."""
    import ray
    from ray import tune

    from dfd_tune.search.process import REPORT

    def report(**told: Any) -> None:
        tune.report({REPORT: json.dumps(told)})

    job = point["attempt"].job
    report(started={"host": "here", "pid": 1, "node": ray.get_runtime_context().get_node_id(), "device": "cpu"})
    if job.kind == "network":
        record = {"key": job.key, "role": job.config.role, "backbone": "resnet18", "width": 1.0, "val_accuracy": 0.9}
        report(outcome="done", record=record, trained=True, filled=False, seconds=1.0)
        return
    result = made_up(job.key, job.config, context.dataset_key)
    report(epoch=result["history"][0])
    report(outcome="done", result=result, peak_memory_bytes=1)


def new_store(folder: Path, sampler: str, points: int) -> tuple[Any, Any, Any]:
    """A store with the digits prepared; a request, and its plan."""
    from dfd_tune.data.prepared import prepare_dataset
    from dfd_tune.plan import make_plan
    from dfd_tune.store import open_store

    store, request = open_store(folder), request_of(sampler, points)
    dataset = prepare_dataset(request.dataset, store, lambda line: None)
    return store, request, make_plan(request, dataset, bank_budget=0)


def search_row(folder: Path, sampler: str, points: int) -> dict[str, Any]:
    """Our driver with jobs that do nothing, from a plan to the last record."""
    from rich.console import Console

    from dfd_tune.search.agenda import Agenda
    from dfd_tune.search.books import SearchBooks
    from dfd_tune.search.capacity import Cluster, Resources, ray_nodes
    from dfd_tune.search.context import SearchContext
    from dfd_tune.search.early_stopping import EarlyStopping
    from dfd_tune.search.estimate import site_of
    from dfd_tune.search.jobs import prerequisite_jobs, trial_job
    from dfd_tune.search.ledger import Ledger
    from dfd_tune.search.measured import Measured
    from dfd_tune.search.points import points_for
    from dfd_tune.search.progress import Progress
    from dfd_tune.search.runtime import RayRuntime
    from dfd_tune.search.screen import Terminal
    from dfd_tune.signals import Signals

    store, request, plan = new_store(folder, sampler, points)
    digest = plan.dataset.digest
    record = search_record(plan)
    meter, ignored = Meter(), list[str]()

    class MeteredBooks(SearchBooks):
        def done(self, attempt: Any, what: Mapping[str, Any]) -> tuple[float, ...] | None:
            value = super().done(attempt, what)
            if attempt.job.kind == "trial":
                meter.tick(points)
            return value

    with Signals() as signals, RayRuntime(folder / "ray.log", signals) as ray:
        ray.start()
        from dfd_tune.search.driver import run

        began = time.perf_counter()
        progress = Progress(Terminal(Console(file=io.StringIO())), points, list(request.explore))
        ledger = Ledger(store, record, [], SilentTracker(), digest, progress)  # type: ignore[arg-type]
        resources = Resources("cpu", 1.0, 0.0, 1.0)
        cluster = Cluster(resources, ray_nodes)
        jobs = prerequisite_jobs(plan.networks, plan.frontends, digest)
        agenda = Agenda(jobs, points_for(plan, digest, {}), lambda key, config: trial_job(config, key, digest), list, 3)
        measured = Measured(plan, ledger, site_of(resources, ray_nodes(), on_cluster=False), ignored.append)
        early = EarlyStopping(request.scheduler, 1, [], lambda key: None)
        order = [job.key for job in jobs]
        books = MeteredBooks(
            ledger, agenda, order, cluster, progress, measured, early, lambda: None, ignored.append, time.monotonic
        )
        context = SearchContext(str(store.root), record.search, digest, (), resources, 60.0)
        with profiled(f"search-{sampler}-{points}"):
            run(agenda, cluster, context, books, trainable=job_that_does_nothing)
        seconds = time.perf_counter() - began
    assert ledger.counts["FINISHED"] == points, ledger.counts
    lines = (folder / "ray.log").read_text().count("\n")
    return meter.figures() | {"wall_s": round(seconds, 1), "lines_in_ray_log": lines}


def search_record(plan: Any) -> Any:
    """The search's own record, as a launch makes it."""
    from dfd_tune.search import launch
    from dfd_tune.search.options import LaunchOptions

    options = LaunchOptions(name="scale", bank_budget=0)
    return launch.search_record(plan, options, SilentTracker())  # type: ignore[arg-type]


def plain_row(folder: Path, sampler: str, points: int) -> dict[str, Any]:
    """Ray Tune as it comes, but for reused processes, with its own random search and a function that does nothing."""
    import ray
    from ray import tune

    meter = Meter()

    class Watch(tune.Callback):
        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            meter.tick(points)

    ray.init(include_dashboard=False, log_to_driver=False, num_cpus=int(CPUS), object_store_memory=100_000_000)
    began = time.perf_counter()
    tune.Tuner(
        lambda point: {"score": point["x"]},
        param_space={"x": tune.uniform(0, 1), "y": tune.loguniform(1e-3, 1)},
        tune_config=tune.TuneConfig(num_samples=points, reuse_actors=True),
        run_config=tune.RunConfig(name="plain", storage_path=str(folder), verbose=0, callbacks=[Watch()]),
    ).fit()
    seconds = time.perf_counter() - began
    ray.shutdown()
    return meter.figures() | {"wall_s": round(seconds, 1)}


def made_up_store(folder: Path, sampler: str, points: int) -> tuple[Any, Any, Any]:
    """A store in which a search of so many points is finished: its records and results, and all students tested."""
    from dfd_tune.analysis.choice import best_trial
    from dfd_tune.distill.student import teacher_key
    from dfd_tune.record import TeacherRecord, TrialRecord, save_search, save_trial
    from dfd_tune.search.conclude import _best_record
    from dfd_tune.search.ledger import Ledger
    from dfd_tune.search.points import points_for

    store, request, plan = new_store(folder, sampler, points)
    search, digest, trials = search_record(plan), plan.dataset.digest, []
    source = points_for(plan, digest, {})
    while (point := source.ask()) is not None:
        key, config = point
        result = made_up(key, config, digest) | {"teacher": teacher_key(config, digest)}
        write_entry(store.path("trials", key), result)
        shared = {name: result[name] for name in ("key", "config", "teacher", "metrics", "history")}
        trials.append(TrialRecord(**shared, status="FINISHED", host="here", device="cpu", attempts=1))
        save_trial(store, "scale", trials[-1])
        source.tell(key, (result["metrics"]["val_accuracy"],))
    if sampler != "grid":
        twin = dataclasses.replace(plan.request.trial(best_trial(search, trials).config), lambda_=0.0)  # type: ignore[union-attr]
        result = made_up(twin.key(digest), twin, digest)
        shared = {name: result[name] for name in ("key", "config", "teacher", "metrics", "history")}
        trials.append(TrialRecord(**shared, status="FINISHED"))
        save_trial(store, "scale", trials[-1])
        write_entry(store.path("trials", trials[-1].key), result)
    teachers = [
        TeacherRecord(key=network.key, role="teacher", backbone="resnet18", width=1, val_accuracy=1, test_accuracy=1)
        for network in plan.networks
    ]
    tested = {trial.key: random.Random(trial.key).random() for trial in trials}
    search = dataclasses.replace(search, teachers=teachers, tested=tested)
    ledger = Ledger(store, search, trials, SilentTracker(), digest, mock.Mock())  # type: ignore[arg-type]
    best = best_trial(search, trials)
    assert best is not None
    search = dataclasses.replace(search, best=_best_record(ledger, best, lambda: None))
    save_search(store, search)
    return store, request, search


def write_entry(folder: Path, result: Mapping[str, Any]) -> None:
    """A trial's entry in the store, whose student is empty; not waited for until it is on the disk."""
    import hashlib

    folder.mkdir(parents=True)
    files = {"result.json": json.dumps(result, indent=2).encode(), "student.safetensors": b""}
    for name, content in files.items():
        (folder / name).write_bytes(content)
    facts = {name: {"bytes": len(text), "sha256": hashlib.sha256(text).hexdigest()} for name, text in files.items()}
    (folder / "manifest.json").write_text(json.dumps({"files": facts}))


def store_rows(folder: Path, sampler: str, points: int) -> list[dict[str, Any]]:
    """What is done with the records of a search that is finished."""
    from dfd_tune.analysis.cells import cells_of
    from dfd_tune.analysis.points import points_of
    from dfd_tune.record import load_trials
    from dfd_tune.report.write import write_report

    store, request, search = made_up_store(folder, sampler, points)
    rows = [timed("relaunch", points, lambda: relaunch(store, request))]
    for form in ("table", "json"):
        command = [sys.executable, "-m", "dfd_tune.cli", "results", "scale", "--format", form, "--store", str(folder)]
        began, cpu = time.perf_counter(), childrens_cpu()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        wall, cpu = time.perf_counter() - began, childrens_cpu() - cpu
        rows.append({"what": f"results --format {form}", "wall_s": round(wall, 2), "cpu_s": round(cpu, 2)})
    trials = load_trials(store, search)
    rows.append(timed("points and cells", points, lambda: (points_of(trials), cells_of(search, trials))))
    rows.append(timed("report", points, lambda: write_report(store, [search], folder / "report")))
    return rows


def childrens_cpu() -> float:
    """CPU seconds of the processes that this one has waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def relaunch(store: Any, request: Any) -> None:
    """A launch of a search of which all is there, up to where it sees that."""
    from rich.console import Console

    from dfd_tune.search import begin, launch
    from dfd_tune.search.options import LaunchOptions
    from dfd_tune.search.screen import Terminal
    from dfd_tune.signals import Signals

    options = LaunchOptions(name="scale", bank_budget=0)
    said = io.StringIO()
    with mock.patch.object(launch, "open_tracker", return_value=SilentTracker()), mock.patch.object(launch, "_end"):
        begin.launch(request, store, options, Terminal(Console(file=said, width=200)), Signals())
    assert "finished already" in said.getvalue(), said.getvalue()


def timed(what: str, points: int, call: Callable[[], object]) -> dict[str, Any]:
    """Seconds of a call, by the clock and of this process's CPU time."""
    wall, cpu = time.perf_counter(), time.process_time()
    with profiled(f"{what}-{points}"):
        call()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return {
        "what": what,
        "wall_s": round(wall, 2),
        "cpu_s": round(cpu, 2),
        "ms_per_trial": round(1000 * cpu / points, 3),
    }


@contextlib.contextmanager
def profiled(name: str) -> Iterator[None]:
    """Where DRIVER_SCALE_PROFILE names a folder, what cProfile makes of the block goes there; it slows the block."""
    folder = os.environ.get("DRIVER_SCALE_PROFILE")
    if not folder:
        yield
        return
    import cProfile

    profile = cProfile.Profile()
    profile.enable()
    try:
        yield
    finally:
        profile.disable()
        profile.dump_stats(Path(folder) / f"{name.replace(' ', '-')}.prof")


def in_a_process_of_its_own(measure: str, sampler: str, points: int) -> Any:
    """What a measurement returns, made in a new process and folder."""
    folder = tempfile.mkdtemp(prefix="driver-scale-")
    try:
        command = [sys.executable, __file__, "--in", folder, measure, sampler, str(points)]
        told = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
        return json.loads(told.splitlines()[-1])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


MEASUREMENTS: dict[str, Callable[[Path, str, int], Any]] = {
    "search": search_row,
    "plain": plain_row,
    "stores": store_rows,
}


def show(row: Any) -> None:
    """Print a row, or what a process of its own measured."""
    print(json.dumps(row), flush=True)


def main() -> None:
    """Measure and print all rows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="300 and 2,000 points only")
    parser.add_argument("--points", type=int, nargs="+", help="these numbers of points instead; multiples of 10")
    parser.add_argument("--only", nargs="+", choices=("search", "stores"), default=("search", "stores"))
    parser.add_argument("--samplers", nargs="+", choices=("grid", "random"), default=("grid", "random"))
    parser.add_argument("--in", dest="one", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        folder, measure, sampler, count = options.one
        show(MEASUREMENTS[measure](Path(folder), sampler, int(count)))
        return
    show({"machine": platform.processor() or platform.machine(), "cores": len(os.sched_getaffinity(0))})
    for points in options.points or (POINTS[:2] if options.quick else POINTS):
        if "search" in options.only:
            search_rows(options.samplers, points)
        for sampler in options.samplers if "stores" in options.only else ():
            for row in in_a_process_of_its_own("stores", sampler, points):
                show({"what": row.pop("what"), "sampler": sampler, "points": points} | row)


def search_rows(samplers: tuple[str, ...], points: int) -> None:
    """Plain Tune, then our driver beside it."""
    plain = in_a_process_of_its_own("plain", "random", points)
    show({"what": "plain Tune", "points": points} | plain)
    for sampler in samplers:
        row = in_a_process_of_its_own("search", sampler, points)
        ratio = round(row["trials_per_s"] / plain["trials_per_s"], 2)
        show({"what": "search", "sampler": sampler, "points": points} | row | {"rate_over_plain": ratio})


if __name__ == "__main__":
    main()
