"""What is asked about searches on a cluster: how they stand, what they print, that they end, that they come here.

Not for: launching them (launch.py).
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dfd_tune.cluster import fetch
from dfd_tune.cluster.jobs import ENDED, SEARCH, STORE, VERB, Jobs
from dfd_tune.cluster.package import make_package
from dfd_tune.cluster.reach import Target, store_from_here
from dfd_tune.cluster.up import Node, nodes_at
from dfd_tune.liveness import State, state_of
from dfd_tune.locks import when
from dfd_tune.record import load_search
from dfd_tune.search.screen import Screen, show, told_in
from dfd_tune.store import Store


@dataclass
class Errand:
    """Jobs of one command, about one search, on a cluster that is reached.

    Attributes:
        jobs: the cluster's.
        target: the cluster.
        search: name of the search.
        folder: for what is uploaded.
    """

    jobs: Jobs
    target: Target
    search: str
    folder: Path
    _count: int = 0

    def submit(
        self, order: dict[str, Any], modules: tuple[Path, ...] = (), credentials: dict[str, str] | None = None
    ) -> str:
        """Submit an order as a job; returns the job's id."""
        self._count += 1
        whole = {"store": self.target.store, "search": self.search, **order}
        package = make_package(self.folder / f"job-{self._count}", whole, credentials or {}, modules)
        return self.jobs.submit(package, {SEARCH: self.search, STORE: self.target.store, VERB: order["verb"]})


@contextlib.contextmanager
def errand(target: Target, search: str, log: Path) -> Iterator[Errand]:
    """Reach the cluster for a command about a search.

    Raises:
        UserError: it does not answer.
    """
    with target.reached(log) as jobs, tempfile.TemporaryDirectory(prefix="dfd-tune-") as folder:
        yield Errand(jobs, target, search, Path(folder))


def run_command(target: Target, search: str, arguments: list[str], echo: Callable[[str], None], log: Path) -> int:
    """Run one of dfd-tune's own commands there, on the store there.

    Args:
        target: the cluster.
        search: which search it is about.
        arguments: of the command line, without --store.
        echo: takes the lines that it prints.
        log: takes what SSH has to say.

    Returns:
        Its exit code.
    """
    with errand(target, search, log) as out:
        begun = False

        def on(what: str, value: Any) -> bool:
            nonlocal begun
            begun = begun or what == "begin"
            return False

        def raw(line: str) -> None:
            if begun:  # what comes before is Ray's
                echo(line)

        told = out.jobs.wait(out.submit({"verb": "command", "arguments": arguments}), on, raw=raw)
        return int(told.value("exit") or 0)


def follow_again(target: Target, search: str, screen: Screen, log: Path) -> bool:
    """Show the latest launch of a search there from its beginning, and on to its end; False if none is known."""
    with target.reached(log) as jobs:
        launches = jobs.of_search(search)
        if not launches:
            return False
        jobs.wait(launches[-1].submission_id or "", lambda what, value: show(what, value, screen))
        return True


def stop(target: Target, search: str, arguments: list[str], echo: Callable[[str], None], log: Path) -> int:
    """Have a search there end gracefully; returns the exit code."""
    with target.reached(log) as jobs:
        waiting = [job for job in jobs.of_search(search) if job.status.value == "PENDING"]
        for job in waiting:
            jobs.stop(job.submission_id or "")
    if waiting:
        echo(f"'{search}' had not begun yet on the {target}; it will not.")
        return 0
    return run_command(target, search, arguments, echo, log)


def fetch_from(target: Target, store: Store, search: str, log: Path) -> State:
    """Bring a search from there into this machine's store; returns how it stands there.

    From a bucket that this machine reaches it is brought without the cluster, which may be gone.

    Raises:
        UserError: the cluster does not answer, or has no such search.
    """
    there = store_from_here(target, store)
    if there is not None:
        return _from_bucket(there, store, search)
    with errand(target, search, log) as out:
        return fetch.fetch(out.jobs, out.submit, store, search)


def bring(out: Errand, store: Store) -> State:
    """Bring the search of an errand into this machine's store, unless it is there; returns how it stands.

    Raises:
        UserError: there is no such search.
    """
    there = store_from_here(out.target, store)
    if there is not None:
        return _from_bucket(there, store, out.search)
    return fetch.fetch(out.jobs, out.submit, store, out.search)


def _from_bucket(there: Store, store: Store, search: str) -> State:
    if there is not store:
        return fetch.copy(there, store, search)
    load_search(store, search)
    return state_of(store, search)


def standing(target: Target, search: str, log: Path) -> list[str]:
    """How a search stands there, in a few lines."""
    with target.reached(log) as jobs:
        launches = jobs.of_search(search)
        if not launches:
            return [
                f"The {target} knows no launch of '{search}'; what is in its store can be brought with `dfd-tune fetch "
                f"{search} {target.option} --cluster-store {target.store}`."
            ]
        last = launches[-1]
        job = last.submission_id or ""
        totals = [value for what, value in map(_told, jobs.log(job).splitlines()) if what == "totals"]
    lines = [f"Search '{search}' on the {target}: {_in_words(last)}."]
    lines += totals[-1:]
    if last.status.value in ENDED and last.status.value != "SUCCEEDED":
        lines.append(f"To go on: dfd-tune resume {search} {target.option}")
    return lines


def nodes_and_searches(target: Target, log: Path) -> list[str]:
    """The nodes of a cluster, and the searches whose launches it knows, a line each."""
    with target.reached(log) as jobs:
        nodes, launches = nodes_at(jobs.address), jobs.launches()
    lines = [f"{node.ip}{' (head)' if node.is_head else ''}: {_resources_of(node)}" for node in nodes]
    latest = {(job.metadata or {})[SEARCH]: job for job in launches}
    return lines + [f"Search '{name}': {_in_words(job)}" for name, job in latest.items()]


def _resources_of(node: Node) -> str:
    gpus = f", {node.gpus:g} GPU{f' {node.accelerator}' if node.accelerator else ''}" if node.gpus else ""
    return f"{node.cpus:g} CPU{gpus}"


def _told(line: str) -> tuple[str, Any]:
    return told_in(line) or ("", None)


def _in_words(job: Any) -> str:
    status = job.status.value
    if status not in ENDED:
        began = f" since {when(job.start_time / 1000)}" if job.start_time else ""
        return f"{status}{began}, job {job.submission_id}"
    words = {"SUCCEEDED": "finished", "FAILED": "ended by an error or with trials that FAILED", "STOPPED": "stopped"}
    ended = f" {when(job.end_time / 1000)}" if job.end_time else ""
    return f"{words[status]}{ended}, job {job.submission_id}"
