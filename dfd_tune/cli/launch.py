"""The commands that run a search: launch, resume.

Not for: what a launch does (search/launch.py), nor for looking at a search (searches.py).
"""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dfd_tune.cli.cluster import (
    cluster_options,
    dry_run_there,
    launch_there,
    launch_there_options,
    refuse_without_cluster,
    target_for,
)
from dfd_tune.cli.group import STORE_OPTION, Duration, FiniteRange, in_store
from dfd_tune.criteria import CRITERIA
from dfd_tune.defaults import EMBEDDED, KEEP_STUDENTS
from dfd_tune.errors import UserError
from dfd_tune.schedulers import SCHEDULERS
from dfd_tune.signals import STOPPED, Signals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from dfd_tune.api import Asked
    from dfd_tune.search.launch import Outcome
    from dfd_tune.search.options import LaunchOptions
    from dfd_tune.settings import Request
    from dfd_tune.store import Store

RETRY_OPTION = click.option(
    "--retry-failed", is_flag=True, help="Run again what FAILED by its own fault; without this, it stays FAILED."
)


LIMITS = (
    click.option(
        "--max-time",
        "max_seconds",
        type=Duration(),
        default=None,
        metavar="TIME",
        help="As 90m or 2h: then no more of the search's trials are begun; what runs is finished and concluded.",
    ),
    click.option(
        "--max-trials",
        type=click.IntRange(1),
        default=None,
        help="Begin at most so many of the search's trials now; launching again goes on.",
    ),
)


CHOOSE_OPTION = click.option(
    "--choose",
    default=None,
    metavar="LIMIT",
    help="accuracy, or the best student of a front: front:parameters<=200000; or multiply_adds, latency<=2ms.",
)


def limit_options(command: Any) -> Any:
    """How much of a search this launch does."""
    for option in reversed(LIMITS):
        command = option(command)
    return command


@click.command()
@click.option(
    "--space", "space_name", required=True, help="A shipped space (see `spaces`) or the path of a .yaml file."
)
@click.option(
    "--dataset",
    default=None,
    metavar="A,B",
    help=f"See `datasets`; of several, a search each and one report.  [default: the space's, else {EMBEDDED}]",
)
@click.option("--data", multiple=True, help="Where the dataset's files are; of several datasets, NAME=PATH each.")
@click.option("--set", "assignments", multiple=True, metavar="KEY=VALUE", help="Override a setting; repeatable.")
@click.option("--trials", type=int, default=None, help="How many trials to draw, for all samplers but grid.")
@click.option(
    "--protocol",
    type=click.Choice(["validation", "paper"]),
    default=None,
    help="By which images λ is chosen; paper: by test images, all trials tested.  [default: validation]",
)
@click.option(
    "--choose-by",
    "choose_by",
    type=click.Choice([*CRITERIA]),
    default=None,
    help="By which metric of validation images all is chosen.  [default: the space's, else accuracy]",
)
@click.option(
    "--confirm-seeds",
    "seeds",
    type=click.IntRange(0, 1000),
    default=None,
    help="Fresh seeds with which what was chosen is trained anew; 0: no verdict.  [default: the space's, else 5]",
)
@click.option(
    "--confirm-cells",
    "cells",
    type=click.Choice(["best", "all"]),
    default=None,
    help="Which cells are.  [default: the space's, else best]",
)
@click.option(
    "--replicate",
    type=click.Choice(["student", "pipeline"]),
    default=None,
    help="What a fresh seed makes anew; pipeline: teacher, start, views too.  [default: the space's, else student]",
)
@click.option(
    "--controls",
    default=None,
    metavar="A,B",
    help="What the student is held against beside plain training: half_longer, longer, low_res_teacher, tuned_base, or "
    "none.  [default: the space's]",
)
@click.option(
    "--scheduler",
    type=click.Choice([*SCHEDULERS]),
    default=None,
    help="By which trials are stopped early; λ = 0 never is.  [default: the space's, else none]",
)
@CHOOSE_OPTION
@click.option(
    "--teacher",
    default=None,
    metavar="FILE",
    help="A teacher that was trained elsewhere: .safetensors of a backbone, or a torch.export program as .pt2.",
)
@click.option("--name", default=None, help="Name of the search.  [default: SPACE-DATASET-DATE]")
@click.option("--seed", type=click.IntRange(0, 2**31 - 1), default=0, show_default=True, help="Seed of everything.")
@STORE_OPTION
@click.option("--mlflow-uri", default=None, help="MLflow server or database.  [default: mlflow.db in the store]")
@click.option(
    "--workers-per-trial",
    "workers",
    type=click.IntRange(1, 1024),
    default=1,
    show_default=True,
    help="Processes of a trial.",
)
@click.option("--cpus-per-worker", type=FiniteRange(0, min_open=True), default=None, help="[default: 1]")
@click.option(
    "--gpus-per-worker",
    type=FiniteRange(0),
    default=None,
    help="A fraction packs several trials on a GPU.  [default: 1 where there is one]",
)
@click.option(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda"]),
    default="auto",
    show_default=True,
    help="Where trials train; auto: on GPUs if there are any; cuda: waits for GPUs to come.",
)
@click.option(
    "--bank-gb",
    type=FiniteRange(0),
    default=8.0,
    show_default=True,
    help="Disk space for teachers' features; a teacher over it runs live.",
)
@click.option(
    "--checkpoint-seconds",
    type=FiniteRange(0),
    default=60.0,
    show_default=True,
    help="A training is kept at an epoch's end, at most this often.",
)
@click.option(
    "--max-failures",
    type=click.IntRange(0),
    default=3,
    show_default=True,
    help="How often a trial goes on after a lost machine, a killed process or the like.",
)
@click.option(
    "--keep-students",
    type=click.Choice([*KEEP_STUDENTS]),
    default=KEEP_STUDENTS[0],
    show_default=True,
    help="Whose weights stay once the search has ended: those that were chosen or tested, or all. Results always stay.",
)
@click.option(
    "--deterministic",
    is_flag=True,
    help="Have equal trainings give equal bits on GPUs too; slower, and an error where torch can't.",
)
@RETRY_OPTION
@click.option("--extend", is_flag=True, help="Go on with the search of this name in a space that holds all of its own.")
@limit_options
@click.option(
    "--rescan",
    is_flag=True,
    help="Read the files of --data again, as some may have been changed in place with size and time as they were.",
)
@click.option("--show-config", is_flag=True, help="Show every setting and where it comes from; run nothing.")
@click.option("--dry-run", is_flag=True, help="Say what would be run, and what it would cost; run nothing.")
@cluster_options
@launch_there_options
def launch(
    space_name: str,
    dataset: str | None,
    data: tuple[str, ...],
    assignments: tuple[str, ...],
    name: str | None,
    store_path: str,
    show_config: bool,
    dry_run: bool,
    bank_gb: float,
    seed: int,
    workers: int,
    trials: int | None,
    protocol: str | None,
    choose_by: str | None,
    seeds: int | None,
    cells: str | None,
    replicate: str | None,
    controls: str | None,
    scheduler: str | None,
    choose: str | None,
    teacher: str | None,
    cluster_file: str | None,
    address: str | None,
    cluster_store: str | None,
    yes: bool,
    no_follow: bool,
    down_after: bool,
    **given: Any,
) -> None:
    """Run a search, or what is left of it; with --cluster or --address, on a cluster.

    Teachers come first, then every trial; then what was chosen is trained anew with fresh seeds beside plain training,
    and these students are tested; the best of them is kept and registered. Launching the same
    search again, or `resume NAME`, continues it: what is finished is not run again. Settings, lowest first: defaults,
    the dataset's recipe, the space, --set.
    """
    confirm = {"seeds": seeds, "cells": cells, "replicate": replicate, "controls": controls}
    asked = {"seed": seed, "workers": workers, "trials": trials, "protocol": protocol, "confirm": confirm}
    asked |= {"scheduler": scheduler, "choose": choose, "choose_by": choose_by, "teacher": teacher}
    from dfd_tune.api import searches_for

    searches = searches_for(space_name, dataset=dataset, data=data, assignments=assignments, name=name, **asked)
    if show_config:
        for one in searches:
            _show_config(one.request, dataset_named=one.named)
        return
    from dfd_tune.store import open_store

    store = open_store(store_path)
    if not searches[0].named and not searches[0].request.space.datasets:
        click.echo(f"Using the embedded dataset {EMBEDDED}; --dataset names another (see `dfd-tune datasets`).")
    from dfd_tune.search.options import LaunchOptions

    options = LaunchOptions(name=searches[0].name, bank_budget=int(bank_gb * 1e9), **given)
    if cluster_file is not None or address is not None:
        request = _the_one(searches)
        target = target_for(options.name, store_path, cluster_file, address, cluster_store)
        if dry_run:
            dry_run_there(target, request, options, store_path)
            return
        launch_there(target, request, options, store_path, yes=yes, follow=not no_follow, down_after=down_after)
        return
    refuse_without_cluster(yes=yes, no_follow=no_follow, down_after=down_after)
    if len(searches) == 1 and not dry_run:
        again = [*sys.argv[1:], *([] if name else ["--name", options.name])]
        _carry_out(searches[0].request, store, options, store_path, again=_as_typed(again))
        return
    _one_after_the_other(searches, store, options, store_path, dry_run=dry_run)


def _the_one(searches: Sequence[Asked]) -> Request:
    """The request of a launch on a cluster."""
    if len(searches) > 1:
        raise UserError(
            "Several datasets are searched one after the other on this machine alone; on a cluster, launch each, and "
            "put them side by side with `dfd-tune report NAME NAME`."
        )
    return searches[0].request


def _one_after_the_other(
    searches: Sequence[Asked], store: Store, options: LaunchOptions, store_path: str, *, dry_run: bool
) -> None:
    """Carry out the searches of several datasets, and put them into one report."""
    from dataclasses import replace

    from dfd_tune.cli.searches import write_reports

    failed = False
    for one in searches:
        if len(searches) > 1:
            click.echo(f"\n{one.name}")
        own = replace(options, name=one.name, experiment=one.experiment)
        if dry_run:
            _dry_run(one.request, store, own)
        else:
            failed |= _ran(one.request, store, own, store_path, again=_as_typed(sys.argv[1:]), resumes=False)
    if not dry_run:
        click.echo("")
        write_reports(store, [one.name for one in searches], None, options.mlflow_uri)
    if failed:
        sys.exit(1)


@click.command()
@click.argument("name")
@STORE_OPTION
@click.option("--mlflow-uri", default=None, help="MLflow's address, where it needs a password, which is not kept.")
@RETRY_OPTION
@CHOOSE_OPTION
@limit_options
@cluster_options
@launch_there_options
def resume(
    name: str,
    store_path: str,
    mlflow_uri: str | None,
    retry_failed: bool,
    max_seconds: float | None,
    max_trials: int | None,
    choose: str | None,
    cluster_file: str | None,
    address: str | None,
    cluster_store: str | None,
    yes: bool,
    no_follow: bool,
    down_after: bool,
    **given: Any,
) -> None:
    """Go on with the search NAME, as it was launched; with --cluster or --address, on a cluster.

    Space, dataset, settings and options are those of its first launch, whatever has become of their files since.
    What is finished is not run again.
    """
    this: dict[str, Any] = {"retry_failed": retry_failed, "max_seconds": max_seconds, "max_trials": max_trials}
    if cluster_file is not None or address is not None:
        if choose is not None:
            raise UserError("--choose is for a search on this machine; there, give it to `launch`.")
        target = target_for(name, store_path, cluster_file, address, cluster_store)
        from dfd_tune.search.options import LaunchOptions

        options = LaunchOptions(name=name, mlflow_uri=mlflow_uri, **this, **given)
        launch_there(target, None, options, store_path, yes=yes, follow=not no_follow, down_after=down_after)
        return
    refuse_without_cluster(yes=yes, no_follow=no_follow, down_after=down_after)
    from dfd_tune.frozen_request import request_from_json
    from dfd_tune.record import load_search
    from dfd_tune.search.options import recorded_options
    from dfd_tune.settings import choosing
    from dfd_tune.store import existing_store, open_store

    search = load_search(existing_store(store_path), name)
    request = choosing(request_from_json(search.request, search=name), choose)
    options = recorded_options(search, mlflow_uri=mlflow_uri, **this)
    _carry_out(request, open_store(store_path), options, store_path, again=f"resume {name}")


def _carry_out(request: Request, store: Store, options: LaunchOptions, store_path: str, *, again: str) -> None:
    """Run a search, say what came of it, and end with its exit code.

    Args:
        again: the command that begins it once more, for a search that is stopped before it has a record.
    """
    if _ran(request, store, options, store_path, again=again, resumes=True):
        sys.exit(1)


def _ran(request: Request, store: Store, options: LaunchOptions, store_path: str, *, again: str, resumes: bool) -> bool:
    """Run a search and say what came of it; returns whether a trial FAILED.

    Args:
        again: the command that begins it once more.
        resumes: whether `resume` does all of that, once the search has a record.
    """
    from dfd_tune.api import carry_out
    from dfd_tune.record import find_search

    try:
        outcome = carry_out(request, store, options)
    except KeyboardInterrupt:
        if resumes and find_search(store, options.name) is not None:
            again = in_store(f"resume {options.name}", store_path)
        click.echo(f"\nStopped. What is finished is kept; to go on: dfd-tune {again}", err=True)
        sys.exit(STOPPED)
    show_outcome(outcome, store_path, store.path("searches", options.name))
    return bool(outcome.failed)


def _dry_run(request: Request, store: Store, options: LaunchOptions) -> None:
    """Say what a launch would run and cost."""
    from dfd_tune.search.dry_run import dry_run

    with Signals() as signals:
        dry_run(request, store, options, click.echo, signals)


def show_outcome(outcome: Outcome, store_path: str, folder: Path) -> None:
    """Say what came of a search, and what to do with it."""
    name = outcome.search.search
    click.echo(f"\nReport: {folder / 'report' / 'report.html'}")
    click.echo(f"Tables and the best student: {folder}")
    click.echo(
        f"MLflow: {_without_password(outcome.tracking_uri)}" + (f", model {outcome.model}" * bool(outcome.model))
    )
    for complaint in outcome.complaints:
        click.echo(complaint, err=True)
    if outcome.failed:
        click.echo(
            f"{sum(outcome.failed.values())} trial(s) FAILED and stay so; "
            f"`{in_store(f'dfd-tune logs {name}', store_path)}` lists their logs, "
            f"`{in_store(f'dfd-tune resume {name} --retry-failed', store_path)}` runs them again.",
            err=True,
        )
        for cause, count in outcome.failed.items():
            click.echo(f"  {count} × {cause}", err=True)
    click.echo("Next:")
    commands = {f"dfd-tune resume {name}": "go on with the trials that the limit has left"} if outcome.cut_short else {}
    commands[f"dfd-tune ui {name}"] = "compare the trials"
    if outcome.search.best is not None:
        commands[f"dfd-tune predict IMAGE... --model {name}"] = "use the best student"
    width = max(len(in_store(command, store_path)) for command in commands)
    for command, purpose in commands.items():
        click.echo(f"  {in_store(command, store_path):<{width}}   {purpose}")


def _show_config(request: Request, *, dataset_named: bool) -> None:
    from dfd_tune.report.formats import plain
    from dfd_tune.show_config import describe

    rows = [list(row) for row in describe(request, dataset_named=dataset_named)]
    click.echo(plain(["setting", "value", "from"], rows), nl=False)


def _as_typed(arguments: Sequence[str]) -> str:
    """A command line without passwords."""
    return shlex.join([_without_password(argument) for argument in arguments])


def _without_password(text: str) -> str:
    return re.sub(r"(://[^/@:\s]*):[^/@\s]*@", r"\1:***@", text)


COMMANDS = (launch, resume)
