"""A search launched on a cluster: planned and asked about here, run there, followed from here, brought back.

In this order, so that what can be refused early is: files and settings, plan, question, cluster, a look around from
its workers, images sent, job submitted. Whatever fails before the job is submitted leaves no machine running that was
started here. Not for: options (cli/), or what the search does there (search/).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from dfd_tune.backbones import is_pinned
from dfd_tune.bring import names_teacher_files, teacher_files, with_teachers_in_store
from dfd_tune.cluster.commands import Errand, bring, errand
from dfd_tune.cluster.incoming import entry_of, take_in_file
from dfd_tune.cluster.jobs import Jobs, Told
from dfd_tune.cluster.package import MLFLOW_URI, credentials_here
from dfd_tune.cluster.probe import NodeFacts, problems_of
from dfd_tune.cluster.reach import Target, remember, store_from_here
from dfd_tune.cluster.send import (
    SentFile,
    cut_into_pieces,
    files_to_send,
    publish_into,
    refuse_too_much,
    send_over_ssh,
)
from dfd_tune.cluster.up import down, is_up, up
from dfd_tune.data.prepared import prepare_dataset
from dfd_tune.distill.frontends import VGG19_FILE, has_vgg19, vgg19_at_hand
from dfd_tune.errors import UserError, raise_all
from dfd_tune.forecast import in_words
from dfd_tune.frozen_request import request_as_json
from dfd_tune.own_backbones import entry_of as entry_of_backbone
from dfd_tune.own_backbones import run_those_of
from dfd_tune.plan import Plan, describe, make_plan
from dfd_tune.search.estimate import Site, estimate
from dfd_tune.search.options import LaunchOptions
from dfd_tune.search.screen import Screen, show
from dfd_tune.search.sizing import Device, resources_for
from dfd_tune.settings import Request
from dfd_tune.store import Store
from dfd_tune.teacher_file import KIND


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A search that is to run on a cluster."""

    target: Target
    request: Request | None
    """None to go on with the search of that name as it was launched."""
    options: LaunchOptions
    environment: dict[str, str] = field(repr=False)
    """Credentials that go along."""
    follow: bool = True
    down_after: bool = False


@dataclass(frozen=True)
class Ending:
    """How a search on a cluster ended, as far as it was followed."""

    kind: Literal["done", "stopped", "left"]
    """left: it runs on, unfollowed."""
    job: str
    failed: dict[str, int] = field(default_factory=dict)
    """Cause -> how many trials FAILED by it."""
    complaints: tuple[str, ...] = ()
    """What MLflow did not take."""


NODE_COPIES = "/tmp/dfd-tune-copies"
"""Where nodes keep their copies of a folder unless another one is named; of a bucket, where each node's own
DFD_TUNE_CACHE says."""


def submission_of(
    target: Target,
    request: Request | None,
    options: LaunchOptions,
    environment: Mapping[str, str],
    *,
    follow: bool,
    down_after: bool,
) -> Submission:
    """What is to be submitted, checked as far as it can be from here.

    Args:
        target: the cluster.
        request: None to go on with a search.
        options: as given; `auto` is a device that the cluster's file says.
        environment: where credentials come from.
        follow: whether the search is followed to its end.
        down_after: whether the cluster is ended then.

    Raises:
        UserError: the device is not known, or options contradict each other.
    """
    problems = []
    device = options.device
    if device == "auto" and request is not None:
        device = (target.cluster.device if target.cluster is not None else None) or "auto"
        if device == "auto":
            problems.append(
                f"What trials train on is not known ahead of the {target}: give --device cuda or --device cpu."
            )
    if down_after and not follow:
        problems.append(
            "--down-after ends the cluster once the followed search has ended, but --no-follow does not follow it; "
            "leave one of them out (idle workers leave by themselves after the cluster file's idle_timeout_minutes)."
        )
    if down_after and target.cluster is None:
        problems.append("--down-after ends the cluster of a file; with --address, leave it out.")
    raise_all(problems)
    copies = options.node_copies or (None if target.in_bucket else NODE_COPIES)
    options = replace(options, device=device, node_copies=copies)
    return Submission(
        target=target,
        request=request,
        options=options,
        environment=credentials_here(environment),
        follow=follow,
        down_after=down_after,
    )


def launch_there(
    submission: Submission, store: Store, screen: Screen, log: Path, confirm: Callable[[], bool]
) -> Ending:
    """Launch a search on a cluster and follow it.

    Args:
        submission: what is asked for.
        store: this machine's, into which the search is brought at its end.
        screen: shows plan and progress.
        log: takes what Ray's launcher and SSH have to say.
        confirm: asked once the plan is shown.

    Raises:
        UserError: it can't be carried out as it stands, or the person does not want it.
        KeyboardInterrupt: while the job is not submitted yet.
    """
    target, name = submission.target, submission.options.name
    submission = _with_teachers(submission, store, screen)
    plan, prepared, entries = _planned(submission, store, screen)
    for line in _cluster_in_words(submission):
        screen.line(line)
    if not confirm():
        raise UserError("Nothing was started.")
    there = store_from_here(target, store, screen.line)
    files = [] if there is store else files_to_send(store, entries)
    if target.cluster is None and there is None:
        refuse_too_much(sum(file.bytes for file in files), target.store)
    with contextlib.ExitStack() as until_submitted:
        _ensure_up(target, log, screen.line, until_submitted)
        with errand(target, name, log) as out:
            _refuse_running(out.jobs, target, name)
            has = _probe(out, submission, plan, sorted({entry_of(file.path) for file in files}), screen)
            missing = [file for file in files if entry_of(file.path) not in has]
            incoming, modules = _sent(out, missing, store, there, log, screen)
            job = _submit(out, submission, prepared, incoming, modules)
            remember(store, name, target, job)
            until_submitted.pop_all()
            shown = frozenset(() if plan is None else describe(plan))
            return _followed(out, submission, job, store, screen, log, shown)


def dry_run_there(submission: Submission, store: Store, screen: Screen) -> None:
    """Say what would be run there, and what it would cost as far as earlier trials in this store tell; nothing is
    asked of the cluster.

    Raises:
        UserError: it can't be carried out as it stands.
    """
    submission = _with_teachers(submission, store, screen)
    plan, _, _ = _planned(submission, store, screen)
    for line in _cluster_in_words(submission):
        screen.line(line)
    if plan is None:
        screen.line("What it costs can't be told without the images.")
        return
    screen.line("No step can be timed from here, nor how many trials run at once; earlier trials alone tell.")
    device: Device = "cuda" if submission.options.device == "cuda" else "cpu"
    site = Site(resources_for(plan, device, {}, submission.options, (), store), nodes=None, host=None)
    for line in in_words(estimate(plan, store, {}, site, screen.line)):
        screen.line(line)


def _with_teachers(submission: Submission, store: Store, screen: Screen) -> Submission:
    """The submission with its teacher files in this machine's store, and named as they are there.

    Raises:
        UserError: a file can't be used, or the images by which that is seen are not here.
    """
    request = submission.request
    if request is None or not names_teacher_files(request):
        return submission
    data = request.dataset.data
    if data is not None and not Path(data).exists():
        raise UserError(
            f"--data {data} is not a folder here, but teacher_file is looked at beside the images before the launch; "
            "launch from where both are."
        )
    dataset = prepare_dataset(request.dataset, store, screen.line, rescan=submission.options.rescan)
    request = with_teachers_in_store(request, store, dataset, screen.line)
    return replace(submission, request=request, options=replace(submission.options, rescan=False))


def _planned(submission: Submission, store: Store, screen: Screen) -> tuple[Plan | None, str | None, list[str]]:
    """The plan, the key of the images prepared here, and the entries of this store that the search needs; None where
    the images are on the nodes, or the search goes on as it was launched."""
    request, options = submission.request, submission.options
    if request is None:
        screen.line(f"Going on with '{options.name}' as it was launched.")
        return None, None, []
    own = [name for name in request.backbones() if is_pinned(name)]
    run_those_of(store, own)
    entries = list(dict.fromkeys(entry_of_backbone(name) for name in own))
    data = request.dataset.data
    if data is not None and not Path(data).exists():
        screen.line(f"--data {data} is not a folder here; it is looked for on the nodes, and prepared there.")
        return None, None, entries
    dataset = prepare_dataset(request.dataset, store, screen.line, rescan=options.rescan)
    device: Device = "cuda" if options.device == "cuda" else "cpu"
    weights = has_vgg19(store)
    plan = make_plan(request, dataset, bank_budget=options.bank_budget, vgg19_at_hand=weights, device=device)
    for line in describe(plan):
        screen.line(line)
    entries += [f"datasets/{dataset.folder.name}", *(f"{KIND}/{file.digest}" for file in teacher_files(request))]
    if weights and any(frontend.config.content == "vgg19" for frontend in plan.frontends):
        entries.append(_vgg19_in_store(store))
    return plan, dataset.folder.name, entries


def _vgg19_in_store(store: Store) -> str:
    """The entry of VGG-19's weights; those in torch's own cache alone go where all is sent from."""
    entry = f"downloads/{VGG19_FILE}"
    if store.changed(*entry.split("/")) is None:
        weights = vgg19_at_hand(store)
        assert weights is not None
        take_in_file(store, weights, entry)
    return entry


def _cluster_in_words(submission: Submission) -> list[str]:
    target, device = submission.target, submission.options.device
    file = target.cluster
    if file is None:
        return [f"On the {target}, on {device}, in the store {target.store} there."]
    accelerator = f", {file.accelerator}" if file.accelerator else ""
    return [
        f"On the {target} ({file.provider}): at most {file.most_nodes} nodes{accelerator}, on {device}, in the store "
        f"{target.store} there."
    ]


def _ensure_up(target: Target, log: Path, say: Callable[[str], None], until_submitted: contextlib.ExitStack) -> None:
    """Start the cluster unless it is up; what is started here ends again if the launch fails before its submission."""
    file = target.cluster
    if file is None:
        return
    if is_up(file, log):
        say(f"The {target} is up.")
        return

    def end() -> None:
        say(f"Ending the {target} again, as nothing was submitted to it.")
        down(file, log, say)

    until_submitted.callback(end)
    up(file, log, say)


def _refuse_running(jobs: Jobs, target: Target, name: str) -> None:
    running = [job for job in jobs.of_search(name) if job.status.value in ("PENDING", "RUNNING")]
    if running:
        raise UserError(
            f"The search '{name}' is being run already on the {target}, by its job {running[-1].submission_id}; follow "
            f"it with `dfd-tune logs {name} --follow {target.option}`, end it with `dfd-tune stop {name} "
            f"{target.option}`, or give this one another --name."
        )


def _probe(out: Errand, submission: Submission, plan: Plan | None, entries: list[str], screen: Screen) -> list[str]:
    """Look around on the nodes; returns which entries the store there has.

    Raises:
        UserError: something stands against the search.
    """
    target, request, device = submission.target, submission.request, submission.options.device
    data = request.dataset.data if request is not None and plan is None else None
    screen.line("Looking at the nodes: versions, GPUs, the store.")
    grows = None if target.cluster is None else target.cluster.provider != "local"
    order = {
        "verb": "probe",
        "data": data,
        "copies": submission.options.node_copies,
        "device": device,
        "grows": grows,
        "entries": entries,
    }
    told = out.jobs.wait(out.submit(order), lambda what, value: show(what, value, screen)).value("probe")
    nodes = [NodeFacts.from_json(node) for node in told["nodes"]]
    raise_all(problems_of(nodes, store=target.store, device=device, data=data))
    if told["running"]:
        raise UserError(
            f"The search '{submission.options.name}' is being run already in the store {target.store}: it is "
            f"{told['running']}; wait for it, or give this one another --name."
        )
    gpus = f", {sum(node.gpus for node in nodes):g} GPUs" if device == "cuda" else ""
    screen.line(f"{len(nodes)} node(s) there now{gpus}: Python {nodes[0].python}, Ray {nodes[0].ray}.")
    return list(told["has"])


def _sent(
    out: Errand, files: list[SentFile], store: Store, there: Store | None, log: Path, screen: Screen
) -> tuple[dict[str, Any] | None, tuple[Path, ...]]:
    """Send what the store there lacks, or lay it ready to go along with the job; returns what the job is told, and the
    folders that go along."""
    target = out.target
    if not files:
        return None, ()
    screen.line(f"Sending {sum(file.bytes for file in files) / 1e6:.1f} MB of prepared images and weights.")
    if there is not None:
        publish_into(there, store, files)
        return None, ()
    if target.cluster is not None:
        return send_over_ssh(target.copy_up(log), store, files, target.store), ()
    incoming, folders = cut_into_pieces(store, files, out.folder / "pieces")
    return incoming, tuple(folders)


def _submit(
    out: Errand,
    submission: Submission,
    prepared: str | None,
    incoming: dict[str, Any] | None,
    modules: tuple[Path, ...],
) -> str:
    options = asdict(submission.options)
    uri = options.pop("mlflow_uri")
    order = {
        "verb": "launch",
        "incoming": incoming,
        "request": None if submission.request is None else request_as_json(submission.request),
        "options": options | {"prepared": prepared, "rescan": submission.options.rescan and prepared is None},
    }
    secrets = submission.environment | ({MLFLOW_URI: uri} if uri is not None else {})
    return out.submit(order, modules, secrets)


def _followed(
    out: Errand,
    submission: Submission,
    job: str,
    store: Store,
    screen: Screen,
    log: Path,
    shown: frozenset[str],
) -> Ending:
    screen.line(f"Submitted as the job {job}.")
    if not submission.follow:
        return Ending("left", job)
    try:
        told = follow(out.jobs, job, screen, shown)
    except KeyboardInterrupt:
        return Ending("left", job)
    with _down_after(submission, log, screen.line):
        try:
            ending = ending_of(told, job)
        except RuntimeError:
            # What it has come to is worth having, if it has come to anything.
            with contextlib.suppress(UserError, RuntimeError):
                bring(out, store)
            raise
        if out.target.store != store.location:
            screen.line(f"Bringing '{out.search}' into the store here.")
        bring(out, store)
        return ending


def follow(jobs: Jobs, job: str, screen: Screen, shown: frozenset[str] = frozenset()) -> Told:
    """Show how a search's job goes on, to its end; lines that were `shown` before are left out."""

    def on(what: str, value: Any) -> bool:
        return (what == "line" and value["text"] in shown) or show(what, value, screen)

    return jobs.wait(job, on)


def ending_of(told: Told, job: str) -> Ending:
    """How a search's job ended, by what it told.

    Raises:
        UserError: it refused.
        RuntimeError: it failed.
    """
    if told.values.get("stopped") or (told.status == "STOPPED" and "refused" not in told.values):
        return Ending("stopped", job)
    if "outcome" in told.values:  # trials that FAILED make the job fail, which is no failure to follow it
        outcome = told.values["outcome"]
        return Ending("done", job, outcome["failed"], tuple(outcome["complaints"]))
    told.value("outcome")
    raise AssertionError("unreachable")


@contextlib.contextmanager
def _down_after(submission: Submission, log: Path, say: Callable[[str], None]) -> Iterator[None]:
    try:
        yield
    finally:
        if submission.down_after and submission.target.cluster is not None:
            down(submission.target.cluster, log, say)
