"""A launch from beginning to end: read, prepare, plan, teach, search, conclude, record.

Not for: options and exit codes (cli.py), nor for any of the steps themselves.
"""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from filelock import FileLock, Timeout
from rich.console import Console

from dfd_tune.config import TrialConfig
from dfd_tune.data.prepared import Dataset, prepare_dataset
from dfd_tune.distill.frontends import vgg19_at_hand
from dfd_tune.distill.student import find_result
from dfd_tune.errors import UserError
from dfd_tune.plan import Plan, describe, make_plan
from dfd_tune.record import SearchRecord, find_search, load_trials, save_search
from dfd_tune.report.conclusion import conclusion
from dfd_tune.report.formats import plain
from dfd_tune.report.points import best_trial
from dfd_tune.report.tables import ranking
from dfd_tune.search.conclude import base_twin, conclude, register
from dfd_tune.search.driver import run_points, run_search
from dfd_tune.search.ledger import Ledger
from dfd_tune.search.progress import Progress
from dfd_tune.search.runtime import ray_runtime, trial_resources
from dfd_tune.search.teach import teach
from dfd_tune.search.worker import TrialContext
from dfd_tune.settings import Request
from dfd_tune.space import in_space
from dfd_tune.store import Store
from dfd_tune.tracking import Tracker, open_tracker, resolve_address

CLOSING_SECONDS = 8.0
"""How long an interrupted launch waits for MLflow; what it does not take by then, the next launch writes."""


@dataclass(frozen=True, kw_only=True)
class LaunchOptions:
    """What a launch is told besides the request itself."""

    name: str
    mlflow_uri: str | None
    cpus_per_worker: float | None
    gpus_per_worker: float | None
    bank_budget: int
    """Bytes."""


@dataclass(frozen=True)
class Outcome:
    """How a launch ended."""

    search: SearchRecord
    failed: int
    model: str | None
    tracking_uri: str
    complaints: list[str]
    """What MLflow did not take."""


def launch(request: Request, store: Store, options: LaunchOptions, console: Console) -> Outcome:
    """Carry out a search, or what is left of it.

    On KeyboardInterrupt (Ctrl-C, SIGTERM) finished trials are kept, running ones are recorded as KILLED, Ray is
    stopped, and the exception goes on.

    Raises:
        UserError: the request can't be carried out as it stands.
    """

    def say(line: str) -> None:
        console.print(line, markup=False, highlight=False, soft_wrap=True)

    resolve_address(store, options.mlflow_uri)
    with _only_launch_of(store, options.name):
        known = find_search(store, options.name)
        dataset = prepare_dataset(request.dataset, store, say)
        vgg19 = vgg19_at_hand(store) is not None
        plan = make_plan(
            request,
            dataset,
            bank_budget=options.bank_budget,
            vgg19_at_hand=vgg19,
            device="cuda" if torch.cuda.is_available() else "cpu",
        )
        search = _search_record(plan, options.name)
        if known is not None:
            _refuse_changes(known, search)
            search = known
        finished = sum(find_result(store, key) is not None for key in plan.trials)
        for line in describe(plan, finished):
            say(line)
        tracker = open_tracker(store, options.mlflow_uri)
        progress = Progress(console, plan.num_trials, list(request.explore))
        save_search(store, search)
        trials = load_trials(store, search)
        ledger = Ledger(store, search, trials, tracker, dataset.digest, progress)
        with _closing_books(ledger):
            _run(plan, ledger, options, progress, say)
            return _end(plan, ledger, tracker, say)


def _run(plan: Plan, ledger: Ledger, options: LaunchOptions, progress: Progress, say: Any) -> None:
    """Everything that needs Ray. Not even started where nothing is left to run."""
    if _complete(plan, ledger):
        say("All trials of this search are finished already.")
        return
    say(f"Starting Ray; networks needed before the trials: {len(plan.networks) + len(plan.frontends)}")
    # The books are closed before Ray is stopped: that takes seconds, in which an impatient machine may end us.
    with ray_runtime(), _closing_books(ledger):
        resources = trial_resources(
            workers=plan.request.settings["workers"],
            cpus_per_worker=options.cpus_per_worker,
            gpus_per_worker=options.gpus_per_worker,
        )
        context = TrialContext(
            store_root=str(ledger.store.root),
            dataset_key=plan.dataset.folder.name,
            banks=tuple(sorted(plan.banks.items())),
            request=plan.request,
            resources=resources,
        )
        teachers, frontends = teach(plan.networks, plan.frontends, context, say)
        ledger.update_search(teachers=teachers, frontends=frontends)
        say(f"{plan.num_trials} trials, {resources.concurrent} at a time")
        with progress:
            run_search(plan, context, ledger)
            twin = _open_twin(plan, ledger)
            if twin is not None:
                run_points([twin], plan, context, ledger)


def _open_twin(plan: Plan, ledger: Ledger) -> dict[str, Any] | None:
    """The point of the best student's λ = 0 twin, where the space does not hold it and it was not run yet."""
    best = best_trial(list(ledger.trials.values()))
    if best is None or best.config["lambda_"] == 0 or "lambda_" not in plan.request.explore:
        return None
    twin = ledger.trials.get(base_twin(TrialConfig(**best.config)).key(ledger.dataset_digest))
    # FAILED is of this launch, which does not try again; what an earlier launch left unfinished is PENDING.
    if twin is not None and twin.status in ("FINISHED", "FAILED"):
        return None
    return {name: best.config[name] for name in plan.request.explore} | {"lambda_": 0.0}


def _complete(plan: Plan, ledger: Ledger) -> bool:
    finished = ledger.with_status("FINISHED")
    if plan.trials:
        all_points = {trial.key for trial in finished} >= set(plan.trials)
    else:
        all_points = sum(in_space(trial.config, plan.request.explore) for trial in finished) >= plan.num_trials
    return all_points and _open_twin(plan, ledger) is None


def _end(plan: Plan, ledger: Ledger, tracker: Tracker, say: Any) -> Outcome:
    files, report = conclude(ledger, plan)
    trials = list(ledger.trials.values())
    complaints = tracker.sync(ledger.search, trials)
    model = None
    try:
        model = register(ledger, tracker, files, report)
    except UserError as error:
        complaints += error.problems
    complaints += [line for line in tracker.close() if line not in complaints]
    say("")
    say(plain(*ranking(ledger.search, trials)))
    for line in conclusion(ledger.search, trials):
        say(line)
    return Outcome(ledger.search, len(ledger.with_status("FAILED")), model, tracker.address, complaints)


def _search_record(plan: Plan, name: str) -> SearchRecord:
    request, dataset = plan.request, plan.dataset
    return SearchRecord(
        search=name,
        space=request.space.name,
        explored={name: axis.as_json() for name, axis in request.explore.items()},
        dataset=asdict(request.dataset) | _facts(dataset),
        settings=dict(request.settings),
        dataset_settings=asdict(request.dataset),
        sampler=request.space.sampler,
        num_trials=plan.num_trials,
        seed=request.seed,
        planned=list(plan.trials),
        protocol=request.protocol,
    )


def _facts(dataset: Dataset) -> dict[str, Any]:
    return {
        "digest": dataset.digest,
        "classes": list(dataset.classes),
        "channels": dataset.channels,
        "image_size": dataset.image_size,
        "train_images": len(dataset.train.labels),
        "validation_images": len(dataset.validation.labels),
        "test_images": len(dataset.test.labels),
        "prepared": dataset.folder.name,
    }


def _refuse_changes(known: SearchRecord, asked: SearchRecord) -> None:
    """A search is what its name says: a changed space, setting or dataset needs a name of its own.

    Only the number of sampled trials may change.
    """
    changes = []
    before = {"space": known.space, "sampler": known.sampler, "seed": known.seed, **known.settings}
    after = {"space": asked.space, "sampler": asked.sampler, "seed": asked.seed, **asked.settings}
    before["dataset"], after["dataset"] = known.dataset["dataset"], asked.dataset["dataset"]
    before["protocol"], after["protocol"] = known.protocol, asked.protocol
    before["images"], after["images"] = known.dataset["digest"], asked.dataset["digest"]
    for name in dict.fromkeys([*known.explored, *asked.explored]):
        before[name], after[name] = (record.explored.get(name, record.settings.get(name)) for record in (known, asked))
    for name in dict.fromkeys([*before, *after]):
        if before.get(name) != after.get(name):
            changes.append(f"{name} was {before.get(name)}, now {after.get(name)}")
    if changes:
        raise UserError(
            f"The search '{known.search}' exists and is another one ({'; '.join(changes)}); give this one another "
            "--name, or launch that one as it was."
        )


@contextlib.contextmanager
def _only_launch_of(store: Store, name: str) -> Iterator[None]:
    folder = store.path("leases")
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / f"search-{name}.lock", timeout=0):
            yield
    except Timeout:
        raise UserError(
            f"The search '{name}' is being run by another launch; wait for it, or give this one another --name."
        ) from None


@contextlib.contextmanager
def _closing_books(ledger: Ledger) -> Iterator[None]:
    """If the block ends by an exception, record what runs as KILLED, here and in MLflow. May be nested."""
    try:
        yield
    except BaseException:
        with _signals_ignored():
            ledger.kill_running()
            ledger.tracker.close(patience=CLOSING_SECONDS)
        raise


@contextlib.contextmanager
def _signals_ignored() -> Iterator[None]:
    """Impatient signals do not interrupt the closing of the books."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
