"""A search brought from a cluster's store into this machine's, where everything works on it as if it had run here.

Brought are its records, logs, report and best student, and, unless they are here or large, the prepared images and
front ends that the report draws from; not the other students' weights, teachers and banks. Not for: MLflow's pages,
which are made from the records (tracking/).
"""

from __future__ import annotations

import contextlib
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dfd_tune.cluster.jobs import Jobs
from dfd_tune.errors import UserError
from dfd_tune.liveness import State, note_running_elsewhere
from dfd_tune.record import load_search
from dfd_tune.store import MANIFEST_FILE, Store

MOST_IMAGES_BYTES = 10**9
"""Prepared images that take more stay where they are."""
_NOT_BROUGHT = (".tune", "stop")
"""In a search's folder: what concerns a process there alone."""

SubmitPack = Callable[[dict[str, Any]], str]


def files_of(store: Store, name: str, has: frozenset[str]) -> list[Path]:
    """The files of a search that are brought away.

    Args:
        store: holds the search.
        name: of the search.
        has: entries, as datasets/KEY, that need not be brought.

    Raises:
        UserError: there is no such search.
    """
    search = load_search(store, name)
    folder = store.path("searches", name)
    unwanted = {folder / part for part in _NOT_BROUGHT}
    found = [
        file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not unwanted & {file, *file.parents} and not file.name.startswith(".")
    ]
    entries = [f"datasets/{search.dataset['prepared']}", *(f"frontends/{record.key}" for record in search.frontends)]
    for entry in entries:
        files = [file for file in sorted(store.path(*entry.split("/")).rglob("*")) if file.is_file()]
        if entry not in has and sum(file.stat().st_size for file in files) <= MOST_IMAGES_BYTES:
            found += files
    return found


def fetch(jobs: Jobs, submit: SubmitPack, store: Store, name: str) -> State:
    """Bring a search from a cluster; what was here of it is replaced.

    Args:
        jobs: the cluster's.
        submit: submits a job that packs the search, given what its order holds; returns the job's id.
        store: this machine's.
        name: of the search.

    Returns:
        How it stands there.

    Raises:
        UserError: there is no such search there, or one of that name is running here.
    """
    job = submit({"verb": "pack", "search": name, "has": _at_hand(store)})
    try:
        packed = jobs.until(job, "packed").value("packed")
        with tempfile.TemporaryDirectory(prefix=".fetched-", dir=store.root) as folder:
            archive = Path(folder) / "search.tar"
            jobs.download(packed["node"], packed["name"], archive)
            if archive.stat().st_size != packed["bytes"]:
                raise UserError(f"The search '{name}' did not arrive whole; fetch it again.")
            with tarfile.open(archive) as tar:
                tar.extractall(Path(folder) / "store", filter="data")
            state = State.from_json(packed["state"])
            _take_in(store, Path(folder) / "store", name, runs=state.kind == "running")
    finally:
        with contextlib.suppress(UserError):
            jobs.stop(job)
    return state


def _at_hand(store: Store) -> list[str]:
    kinds = ("datasets", "frontends")
    return [
        f"{kind}/{place.name}"
        for kind in kinds
        for place in store.path(kind).glob("[!.]*")
        if store.whole(kind, place.name)
    ]


def _take_in(store: Store, brought: Path, name: str, *, runs: bool) -> None:
    for kind in ("datasets", "frontends"):
        for place in (brought / kind).glob("*"):
            if not store.whole(kind, place.name):
                with store.publish(kind, place.name) as draft:
                    for file in place.iterdir():
                        if file.name != MANIFEST_FILE:
                            file.rename(draft / file.name)
    target, aside = store.path("searches", name), brought / "before"
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(aside)
    (brought / "searches" / name).rename(target)
    if runs:
        note_running_elsewhere(store, name)
    shutil.rmtree(aside, ignore_errors=True)
