"""A launch from beginning to end: read, prepare, plan, search, conclude, record.

Not for: the lock and the Ray that it runs under (begin.py), options and exit codes (cli/), nor any of the steps
themselves.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial

import torch

from dfd_tune.bring import with_teachers_in_store
from dfd_tune.config import TrialConfig
from dfd_tune.data.prepared import Dataset, prepare_dataset
from dfd_tune.distill.checkpoints import training_name
from dfd_tune.distill.frontends import has_vgg19
from dfd_tune.distill.student import find_result
from dfd_tune.errors import UserError, raise_all
from dfd_tune.forecast import against_outcome
from dfd_tune.frozen_request import request_as_json
from dfd_tune.machine import multiplies_bf16
from dfd_tune.own_backbones import run_those_of
from dfd_tune.parts import ImportedConfig
from dfd_tune.plan import Plan, describe, longest_of, make_plan
from dfd_tune.record import SearchRecord, known_search, load_trials
from dfd_tune.report.conclusion import conclusion
from dfd_tune.report.formats import plain
from dfd_tune.report.tables import ranking
from dfd_tune.search.agenda import Agenda
from dfd_tune.search.books import SearchBooks, title
from dfd_tune.search.capacity import Cluster, ask_autoscaler, ray_nodes, refuse_what_never_fits
from dfd_tune.search.conclude import conclude, follow_up, prepare, register
from dfd_tune.search.context import SearchContext, end_early, scratch
from dfd_tune.search.costs import StudentCosts, wanted_costs
from dfd_tune.search.early_stopping import EarlyStopping
from dfd_tune.search.estimate import site_of
from dfd_tune.search.jobs import Job, prerequisite_jobs, trial_job
from dfd_tune.search.ledger import Ledger, reopened
from dfd_tune.search.limits import Limits
from dfd_tune.search.measured import Measured
from dfd_tune.search.options import LaunchOptions
from dfd_tune.search.points import points_for
from dfd_tune.search.progress import Progress
from dfd_tune.search.runtime import RayRuntime
from dfd_tune.search.same_search import refuse_changes
from dfd_tune.search.screen import Screen
from dfd_tune.search.shares import Shares
from dfd_tune.search.sizing import Device, in_words, resources_for
from dfd_tune.settings import Request
from dfd_tune.signals import Signals
from dfd_tune.store import Store
from dfd_tune.tracking import Tracker, open_tracker, resolve_address
from dfd_tune.upkeep.students import let_go_of_students

CLOSING_SECONDS = 8.0
"""How long an interrupted launch waits for MLflow; what it does not take by then, the next launch writes."""
MANY_RUNS = 100
"""So many take MLflow longer than a person waits without a word."""

Say = Callable[[str], None]


@dataclass(frozen=True)
class Outcome:
    """How a launch ended."""

    search: SearchRecord
    failed: dict[str, int]
    """Cause -> how many trials FAILED by it."""
    model: str | None
    tracking_uri: str
    complaints: list[str]
    """What MLflow did not take."""
    cut_short: bool = False
    """Whether a limit of this launch has left trials for the next."""


def carry_out(request: Request, store: Store, options: LaunchOptions, screen: Screen, ray: RayRuntime) -> Outcome:
    """Carry out a search, or what is left of it, that `begin.launch` has opened: see there."""
    say = screen.line
    known = known_search(store, options.name)
    # A search that goes on is recorded where it began, unless another place is named.
    address = known.mlflow if known is not None and options.mlflow_uri is None else options.mlflow_uri
    resolve_address(store, address)
    run_those_of(store, request.backbones())
    dataset = dataset_of(request, options, known, store, say)
    request = with_teachers_in_store(request, store, dataset, say)
    device = known.resources["device"] if known is not None and known.resources else device_for(options.device, ray)
    vgg19 = has_vgg19(store)
    plan = make_plan(request, dataset, bank_budget=options.bank_budget, vgg19_at_hand=vgg19, device=device)
    tracker = open_tracker(store, address, meanwhile=True)
    search = search_record(plan, options, tracker)
    if known is not None:
        refuse_changes(known, search, extend=options.extend)
        search = continued(known, search)
    progress = Progress(
        screen,
        plan.num_trials + plan.num_anew,
        list(request.explore),
        price_of=partial(_price, options) if ray.on_cluster else None,
    )
    ledger = _open_ledger(store, search, tracker, plan, progress, options.retry_failed)
    lost = known is None and bool(ledger.trials)
    with _closing_books(ledger, ray.signals):
        ledger.update_search()
        ledger.cost_out(wanted_costs(request.objectives, request.choose))
        reused = _take_known_results(ledger, plan, say)
        for line in describe(plan, reused):
            say(line)
        cut_short = _run_what_is_left(plan, device, ledger, options, progress, ray, say, lost=lost)
        return _end(plan, ledger, tracker, say, cut_short=cut_short)


def dataset_of(request: Request, options: LaunchOptions, known: SearchRecord | None, store: Store, say: Say) -> Dataset:
    """The dataset of a search; one that goes on keeps its own, whatever rescans for others have found since."""
    of_search = None if known is None else known.dataset.get("prepared")
    prepared, rescan = options.prepared, options.rescan
    return prepare_dataset(request.dataset, store, say, prepared=prepared, of_search=of_search, rescan=rescan)


def _run_what_is_left(
    plan: Plan,
    device: Device,
    ledger: Ledger,
    options: LaunchOptions,
    progress: Progress,
    ray: RayRuntime,
    say: Say,
    *,
    lost: bool = False,
) -> bool:
    """Everything that needs Ray, which is not even started where nothing is left to run; returns whether a limit has
    left trials for the next launch. Where the search's own record was lost, it hears of its networks anew."""
    ledger.store.discard(*scratch(ledger.search.search))
    points = points_for(plan, ledger.dataset_digest, ledger.trials)
    ledger.number_by(points.number_of)
    later = [] if points.left() else follow_up(ledger, plan)
    if not points.left() and not later and not lost:
        say("All trials of this search are finished already.")
        return False
    prerequisites = _prerequisites(plan, ledger, lost=lost) if points.left() or lost else []
    say(f"Starting Ray; networks needed before the trials: {len(prerequisites)}")
    ray.start()
    # The books are closed before Ray is stopped: that takes seconds, and a machine that is shut down may not give them.
    with _closing_books(ledger, ray.signals):
        nodes = ray_nodes()
        resources = resources_for(plan, device, ledger.search.resources, options, nodes, ledger.store)
        workers = plan.request.settings["workers"]
        refuse_what_never_fits(resources, workers, nodes, may_grow=ray.may_grow())
        ledger.update_search(resources=asdict(resources))
        say(in_words(resources, plan.request.settings["precision"], deterministic=options.deterministic))
        emulated = plan.request.settings["precision"] == "bf16" and device == "cpu" and not multiplies_bf16()
        if emulated and not ray.on_cluster:
            say("This CPU emulates bf16, many times slower than float32; --set precision=float32 is what suits it.")
        measured = Measured(plan, ledger, site_of(resources, nodes, on_cluster=ray.on_cluster), say)
        cluster = Cluster(resources, ray_nodes, ask=ask_autoscaler if ray.on_cluster else None)
        agenda = Agenda(
            prerequisites,
            points,
            lambda key, config: trial_job(config, key, ledger.dataset_digest),
            lambda: follow_up(ledger, plan, say),
            options.max_failures,
            Shares(resources.gpus, ledger.trials.values()),
            Limits(options.max_seconds, options.max_trials, say),
        )
        early = EarlyStopping(
            plan.request.scheduler,
            longest_of(plan.request),
            ledger.trials.values(),
            partial(_end_early, ledger),
            ledger.search.criterion,
        )
        ahead = partial(prepare, ledger.tracker)
        order = _order(plan)
        books = SearchBooks(ledger, agenda, order, cluster, progress, measured, early, ahead, say, time.monotonic)
        context = SearchContext(
            location=ledger.store.location,
            search=ledger.search.search,
            dataset_key=plan.dataset.folder.name,
            banks=tuple(sorted(plan.banks.items())),
            resources=resources,
            measures=ledger.search.criterion.column,
            checkpoint_seconds=options.checkpoint_seconds,
            copies=options.copies,
            deterministic=options.deterministic,
        )
        from dfd_tune.search.driver import run

        with progress.screen:
            run(agenda, cluster, context, books)
        if agenda.full is not None:
            raise UserError(agenda.full.cause)
        measured.ended()
        if agenda.stopping:
            raise KeyboardInterrupt
        _raise_what_broke(agenda, plan, ledger.dataset_digest)
        return agenda.cut_short


def _prerequisites(plan: Plan, ledger: Ledger, *, lost: bool) -> list[Job]:
    """What trials need; where the record of what there is was lost, also what the store has of what comes later."""
    networks, frontends, has = list(plan.networks), list(plan.frontends), ledger.store.whole
    if lost:
        networks += [network for network in plan.later_networks if has("pretrained", network.key)]
        frontends += [frontend for frontend in plan.later_frontends if has("frontends", frontend.key)]
    return prerequisite_jobs(networks, frontends, ledger.dataset_digest)


def _end_early(ledger: Ledger, key: str) -> None:
    """Tell a running trial to end at the epoch that it has reported."""
    end_early(ledger.store, ledger.search.search, training_name("trials", key))


def _order(plan: Plan) -> list[str]:
    """Keys of the networks and front ends, as they come in the search's record."""
    networks, frontends = (*plan.networks, *plan.later_networks), (*plan.frontends, *plan.later_frontends)
    return [network.key for network in networks] + [frontend.key for frontend in frontends]


def _price(options: LaunchOptions, seconds: float) -> str:
    """What the nodes that are there now cost in that time, to go on with a sentence."""
    nodes = len(ray_nodes())
    price = "" if options.price_per_hour is None else f", about {nodes * seconds / 3600 * options.price_per_hour:,.2f}"
    at = "" if options.price_per_hour is None else f" at {options.price_per_hour:g} an hour each"
    return f"{price} on the {nodes} node(s) there now{at}"


def _raise_what_broke(agenda: Agenda, plan: Plan, dataset_digest: str) -> None:
    """End with what kept jobs from being done that others, or the conclusion, wait for.

    Raises:
        UserError: a network's training diverged, so that its recipe must be changed, or the machine kept failing.
        RuntimeError: anything else, with the traceback from where it was raised.
    """
    known = prerequisite_jobs(
        (*plan.networks, *plan.later_networks), (*plan.frontends, *plan.later_frontends), dataset_digest
    )
    jobs = {job.id: job for job in known}
    problems = []
    for broken, failure in agenda.broken.items():
        job = jobs.get(broken)
        name = f"{broken[0]} {broken[1]}"
        if job is not None and not isinstance(job.config, TrialConfig):
            name = title(job.config)
        if failure.plain and job is not None and not isinstance(job.config, TrialConfig):
            settings = "frontend_" if broken[0] == "frontend" else "teacher_"
            recipe = "" if isinstance(job.config, ImportedConfig) else f" (Its settings begin with `{settings}`.)"
            problems.append(f"{name}: {failure.cause}{recipe}")
        elif failure.plain:
            problems.append(f"{name}: {failure.cause}")
        elif failure.fault == "machine":
            problems.append(f"{name}: attempt after attempt failed ({failure.cause}); mend that, and launch again.")
        else:
            raise RuntimeError(f"{name} failed:\n{failure.error}")
    raise_all(problems)


def _end(plan: Plan, ledger: Ledger, tracker: Tracker, say: Say, *, cut_short: bool) -> Outcome:
    conclude(ledger, plan)
    trials = ledger.in_order()
    if tracker.waiting > MANY_RUNS:
        say(f"MLflow has {tracker.waiting} runs still to take.")
    complaints = tracker.sync(ledger.search, trials)
    model = None
    try:
        model = register(ledger, tracker)
    except UserError as error:
        complaints += error.problems
    complaints += [line for line in tracker.close() if line not in complaints]
    if not cut_short:
        let_go_of_students(ledger.store, ledger.search, trials, say)
    say("")
    say(plain(*ranking(ledger.search, trials)))
    for line in conclusion(ledger.search, trials):
        say(line)
    if (cost := against_outcome(ledger.search.forecast)) is not None:
        say(cost)
    causes = Counter(trial.cause or "" for trial in ledger.with_status("FAILED"))
    return Outcome(ledger.search, dict(causes), model, tracker.address, complaints, cut_short)


def _open_ledger(
    store: Store,
    search: SearchRecord,
    tracker: Tracker,
    plan: Plan,
    progress: Progress,
    retry_failed: bool,
) -> Ledger:
    """The books as an earlier launch left them, as far as the store bears them out."""
    records = load_trials(store, search)
    results = store.each(lambda record: find_result(store, record.key), records)
    trials = [
        reopened(
            record,
            has_result=result is not None,
            retry_failed=retry_failed,
            stops_early=plan.request.scheduler.stops,
        )
        for record, result in zip(records, results, strict=True)
    ]
    costs = StudentCosts(plan.dataset, plan.request.objectives, plan.request.choose, trials)
    return Ledger(store, search, trials, tracker, plan.dataset.digest, progress, costs=costs.of)


def _take_known_results(ledger: Ledger, plan: Plan, say: Say) -> int:
    """Record what the store holds of the grid's points, be it of another search; returns how many are known."""
    records = {key: ledger.trials.get(key) for key in plan.trials}
    known = sum(record is not None and record.status == "FINISHED" for record in records.values())
    asked = [key for key, record in records.items() if record is None or record.status in ("PENDING", "STOPPED")]
    results = ledger.store.each(lambda key: find_result(ledger.store, key, say=say), asked)
    for key, result in zip(asked, results, strict=True):
        if result is not None and ledger.search.criterion.column in result.metrics:
            ledger.finished(plan.trials[key], result)
            known += 1
    return known


def device_for(asked: str, ray: RayRuntime) -> Device:
    """Where trials train: as asked or, with `auto`, on GPUs if the nodes have any.

    Raises:
        UserError: GPUs are asked for on this machine, which has none.
    """
    if not ray.on_cluster:
        has_gpu = torch.cuda.is_available()
        if asked == "cuda" and not has_gpu:
            raise UserError("--device is cuda, but torch finds no GPU on this machine; take --device cpu or auto.")
        return "cuda" if asked != "cpu" and has_gpu else "cpu"
    if asked == "auto":
        ray.start()
        return "cuda" if any(node.gpus > 0 for node in ray_nodes()) else "cpu"
    return "cuda" if asked == "cuda" else "cpu"


def search_record(plan: Plan, options: LaunchOptions, tracker: Tracker | None) -> SearchRecord:
    """The record of a search as it is planned; without a tracker, one that is compared and not kept."""
    request = plan.request
    address: str | None = None if tracker is None else tracker.recorded_address
    return SearchRecord(
        search=options.name,
        space=request.space.name,
        explored={name: axis.as_json() for name, axis in request.explore.items()},
        dataset=plan.dataset_facts(),
        settings=dict(request.settings),
        dataset_settings=asdict(request.dataset),
        sampler=request.space.sampler,
        num_trials=plan.num_trials,
        seed=request.seed,
        planned=list(plan.trials),
        protocol=request.protocol,
        objectives=list(request.objectives),
        choose=request.choose.as_text(),
        choose_by=request.choose_by,
        confirm=request.confirm,
        request=request_as_json(request),
        experiment=options.experiment,
        options=asdict(replace(options, mlflow_uri=address))
        | {"mlflow_password": tracker is not None and tracker.has_password},
        home=None if tracker is None else tracker.home,
        mlflow=address,
    )


def continued(known: SearchRecord, asked: SearchRecord) -> SearchRecord:
    """The record of a search that goes on: what came of it so far, with the space and the choice that are now asked
    for."""
    return replace(
        known,
        space=asked.space,
        explored=asked.explored,
        settings=asked.settings,
        choose=asked.choose,
        num_trials=asked.num_trials,
        planned=asked.planned,
        request=asked.request,
        options=asked.options,
        mlflow=asked.mlflow,
    )


@contextlib.contextmanager
def _closing_books(ledger: Ledger, signals: Signals) -> Iterator[None]:
    """If the block ends by an exception, record what runs as KILLED, here and in MLflow. May be nested."""
    try:
        yield
    except BaseException:
        with signals.closing():
            try:
                with contextlib.suppress(OSError):  # a trial that is RUNNING where nobody runs it counts as interrupted
                    ledger.kill_running()
            finally:
                ledger.tracker.close(patience=CLOSING_SECONDS)
        raise
