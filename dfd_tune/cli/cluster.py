"""The commands about clusters, and the options by which others reach one.

Not for: what is done there (cluster/).
"""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dfd_tune.cli.group import STORE_OPTION, FiniteRange, cli, in_store
from dfd_tune.errors import UserError, raise_all, unknown_name
from dfd_tune.signals import STOPPED, Signals

if TYPE_CHECKING:
    from dfd_tune.cluster.launch import Ending
    from dfd_tune.cluster.reach import Target
    from dfd_tune.search.options import LaunchOptions
    from dfd_tune.settings import Request
    from dfd_tune.store import Store

_OPTIONS = (
    click.option("--cluster", "cluster_file", default=None, metavar="FILE", help="A Ray cluster file: run there."),
    click.option(
        "--address",
        default=None,
        metavar="URL",
        help="Job port of a cluster that is up, as http://HOST:8265: run there.",
    ),
    click.option(
        "--cluster-store",
        default=None,
        envvar="DFD_TUNE_CLUSTER_STORE",
        show_envvar=True,
        metavar="PLACE",
        help="The store of the cluster: a bucket, or a folder that all nodes mount.  [default: --store, if a bucket]",
    ),
)


_LAUNCH_OPTIONS = (
    click.option("-y", "--yes", is_flag=True, help="On a cluster: do not ask before it begins."),
    click.option("--no-follow", is_flag=True, help="On a cluster: submit it, and leave."),
    click.option("--down-after", is_flag=True, help="End the cluster of --cluster once the search has ended."),
    click.option(
        "--price-per-hour",
        type=FiniteRange(0, min_open=True),
        default=None,
        help="Of one node, to be told what the search will cost.",
    ),
    click.option(
        "--node-copies",
        default=None,
        metavar="FOLDER",
        help="On a cluster: where each node keeps its own copy of images and banks.  [default: in the nodes' /tmp]",
    ),
)


def launch_there_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options of a launch on a cluster."""
    for option in reversed(_LAUNCH_OPTIONS):
        command = option(command)
    return command


def cluster_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command --cluster, --address and --cluster-store."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def log_of(what: str) -> Path:
    """Where what Ray's launcher and SSH have to say is kept, of a cluster or an address."""
    name = "".join(letter if letter.isalnum() else "-" for letter in what).strip("-")
    return Path(tempfile.gettempdir()) / f"dfd-tune-{os.getuid()}-{name}.log"


def target_for(name: str, store_path: str, cluster: str | None, address: str | None, there: str | None) -> Target:
    """The cluster that a command about the search NAME means: as given, and what is not, as it was launched from here.

    Raises:
        UserError: neither says.
    """
    from dfd_tune.cluster.reach import remembered, require_extra, target_of
    from dfd_tune.store import BucketStore, open_store

    require_extra()
    store = open_store(store_path)
    known = remembered(store, name)
    if cluster is None and address is None:
        cluster, address = known.get("cluster"), known.get("address")
    if there is None:
        there = known.get("store") or (store.location if isinstance(store, BucketStore) else None)
    return target_of(cluster, address, there)


def logs_there(target: Target, name: str, trial: str | None, *, follow: bool) -> int:
    """Show what `logs` would show there, or how the search itself goes on; returns the exit code."""
    from rich.console import Console

    from dfd_tune.cluster.commands import follow_again, run_command
    from dfd_tune.search.screen import Terminal

    log = log_of(str(target))
    with Signals():
        if follow and trial is None:
            if not follow_again(target, name, Terminal(Console()), log):
                raise UserError(
                    f"The {target} knows no launch of '{name}'; see `dfd-tune status {name} {target.option}`."
                )
            return 0
        arguments = ["logs", name, *([trial] if trial else []), *(["--follow"] if follow else [])]
        return run_command(target, name, arguments, click.echo, log)


def stop_there(target: Target, name: str, patience: float) -> int:
    """End a search on the cluster gracefully; returns the exit code."""
    from dfd_tune.cluster.commands import stop

    with Signals():
        return stop(target, name, ["stop", name, "--wait", f"{patience:g}"], click.echo, log_of(str(target)))


@click.command()
@click.argument("name")
@cluster_options
@STORE_OPTION
def status(
    name: str, cluster_file: str | None, address: str | None, cluster_store: str | None, store_path: str
) -> None:
    """Say how the search NAME stands: here, or on the cluster that it was launched on."""
    from dfd_tune.cli.running import how_it_stands
    from dfd_tune.cluster.reach import remembered
    from dfd_tune.liveness import state_of
    from dfd_tune.record import load_search
    from dfd_tune.store import BucketStore, existing_store

    if cluster_file is None and address is None:
        store = existing_store(store_path)
        straight = isinstance(store, BucketStore) and store.changed("searches", name, "search.json") is not None
        if straight or not remembered(store, name):
            load_search(store, name)
            click.echo(how_it_stands(state_of(store, name), name, store_path))
            return
    target = target_for(name, store_path, cluster_file, address, cluster_store)
    from dfd_tune.cluster.commands import standing
    from dfd_tune.cluster.tunnel import NotUpError

    try:
        with Signals():
            for line in standing(target, name, log_of(str(target))):
                click.echo(line)
    except NotUpError as error:
        click.echo(error)
        again = in_store(f"dfd-tune resume {name} {target.option}", store_path)
        click.echo(f"Search '{name}' does not run there, then; what is left of it, if anything, runs by: {again}")


@click.command()
@click.argument("name")
@cluster_options
@STORE_OPTION
def fetch(name: str, cluster_file: str | None, address: str | None, cluster_store: str | None, store_path: str) -> None:
    """Bring the search NAME from a cluster's store into the store here.

    Records, report and best student come, after which `results`, `report`, `ui` and `predict` work on it here. May be
    done while it runs, and again.
    """
    from dfd_tune.cluster.commands import fetch_from
    from dfd_tune.store import open_store

    target = target_for(name, store_path, cluster_file, address, cluster_store)
    with Signals():
        store = open_store(store_path)
        state = fetch_from(target, store, name, log_of(str(target)))
    brought = "It is in" if target.store == store.location else "It is now in"
    click.echo(f"Search '{name}' on the {target}: {state}. {brought} {store_path}.")
    click.echo(f"Next: {in_store(f'dfd-tune results {name}', store_path)}")


@cli.group()
def cluster() -> None:
    """Start, end and look at clusters of a Ray cluster file."""


@cluster.command()
@click.argument("name", required=False)
def example(name: str | None) -> None:
    """Print the shipped cluster file NAME, to be filled in; without NAME, which there are."""
    from dfd_tune.cluster.files import shipped_clusters

    shipped = shipped_clusters()
    if name is None:
        for known, file in shipped.items():
            click.echo(f"{known:<12}{file.name}")
        return
    if name not in shipped:
        raise UserError(unknown_name("cluster file", name, shipped))
    click.echo(shipped[name].read_text(encoding="utf-8"), nl=False)


@cluster.command("up")
@click.argument("file")
def up_command(file: str) -> None:
    """Start the cluster of FILE, unless it is up, and wait for its nodes."""
    from dfd_tune.cluster.files import read_cluster
    from dfd_tune.cluster.reach import require_extra
    from dfd_tune.cluster.up import is_up, up

    require_extra()
    described = read_cluster(file)
    log = log_of(f"cluster '{described.name}'")
    with Signals():
        if is_up(described, log):
            click.echo(f"The cluster '{described.name}' is up; to have changes of {file} applied, end it first.")
            return
        up(described, log, click.echo)


@cluster.command("down")
@click.argument("file")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
def down_command(file: str, yes: bool) -> None:
    """End the cluster of FILE, all of its nodes, and whatever runs there."""
    from dfd_tune.cluster.files import read_cluster
    from dfd_tune.cluster.reach import require_extra
    from dfd_tune.cluster.up import down

    require_extra()
    described = read_cluster(file)
    if not yes and not click.confirm(f"End the cluster '{described.name}' and whatever runs there?"):
        raise UserError("Nothing was ended.")
    with Signals():
        down(described, log_of(f"cluster '{described.name}'"), click.echo)


@cluster.command("status")
@click.argument("file")
def status_command(file: str) -> None:
    """Show the nodes of the cluster of FILE, and its searches."""
    from dfd_tune.cluster.commands import nodes_and_searches
    from dfd_tune.cluster.files import read_cluster
    from dfd_tune.cluster.reach import Target, require_extra

    require_extra()
    target = Target(read_cluster(file), None, "")
    with Signals():
        for line in nodes_and_searches(target, log_of(str(target))):
            click.echo(line)


def refuse_without_cluster(**given: bool) -> None:
    """Refuse options that mean something on a cluster alone.

    Raises:
        UserError: one is given, and no cluster is.
    """
    raise_all(
        [
            f"--{name.replace('_', '-')} is for searches on a cluster; name one with --cluster or --address, or "
            "leave it out."
            for name, value in given.items()
            if value
        ]
    )


def launch_there(
    target: Target,
    request: Request | None,
    options: LaunchOptions,
    store_path: str,
    *,
    yes: bool,
    follow: bool,
    down_after: bool,
) -> None:
    """Launch a search on a cluster, say what came of it, and end with its exit code."""
    from rich.console import Console

    from dfd_tune.cluster.launch import launch_there as run
    from dfd_tune.cluster.launch import submission_of
    from dfd_tune.search.screen import Terminal
    from dfd_tune.store import open_store

    submission = submission_of(target, request, options, os.environ, follow=follow, down_after=down_after)
    store = open_store(store_path)
    try:
        with Signals():
            ending = run(
                submission,
                store,
                Terminal(Console()),
                log_of(str(target)),
                lambda: yes or click.confirm("Go on?", default=True),
            )
    except KeyboardInterrupt:
        click.echo("\nStopped before anything was submitted.", err=True)
        sys.exit(STOPPED)
    if ending.kind == "left":
        _say_how_to_come_back(target, options.name, store_path)
    elif ending.kind == "stopped":
        again = in_store(f"dfd-tune resume {options.name} {target.option}", store_path)
        click.echo(f"\nStopped. What is finished is kept; to go on: {again}", err=True)
        sys.exit(STOPPED)
    else:
        _show_ending(ending, store, store_path, options.name)


def dry_run_there(target: Target, request: Request, options: LaunchOptions, store_path: str) -> None:
    """Say what a launch on a cluster would run and cost."""
    from rich.console import Console

    from dfd_tune.cluster.launch import dry_run_there as run
    from dfd_tune.cluster.launch import submission_of
    from dfd_tune.search.screen import Terminal
    from dfd_tune.store import open_store

    submission = submission_of(target, request, options, os.environ, follow=True, down_after=False)
    run(submission, open_store(store_path), Terminal(Console()))


def _say_how_to_come_back(target: Target, name: str, store_path: str) -> None:
    click.echo(f"\nThe search '{name}' runs on, on the {target}. To come back:")
    commands = {
        f"dfd-tune status {name}": "how it stands",
        f"dfd-tune logs {name} --follow {target.option}": "follow it again",
        f"dfd-tune fetch {name}": "bring it here, also while it runs",
        f"dfd-tune stop {name} {target.option}": "end it gracefully",
    }
    width = max(len(in_store(command, store_path)) for command in commands)
    for command, purpose in commands.items():
        click.echo(f"  {in_store(command, store_path):<{width}}   {purpose}")
    if target.cluster is not None:
        click.echo(
            f"Idle workers leave after {target.cluster.idle_minutes:g} minutes, where Ray started them; all of it "
            f"ends with `dfd-tune cluster down {target.cluster.path}`."
        )


def _show_ending(ending: Ending, store: Store, store_path: str, name: str) -> None:
    from dfd_tune.cli.launch import show_outcome
    from dfd_tune.record import load_search
    from dfd_tune.search.launch import Outcome

    search = load_search(store, name)
    address = search.mlflow or f"in the store; `{in_store(f'dfd-tune ui {name}', store_path)}` shows it"
    model = None if search.best is None else search.best.model
    outcome = Outcome(search, ending.failed, model, address, list(ending.complaints))
    show_outcome(outcome, store_path, store.path("searches", name))
    if ending.failed:
        sys.exit(1)


COMMANDS = (status, fetch)
