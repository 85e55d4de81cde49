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
from dfd_tune.cluster.send import files_of_entry
from dfd_tune.errors import UserError
from dfd_tune.liveness import State, at_rest, note_running_elsewhere, state_of
from dfd_tune.record import load_search
from dfd_tune.store import MANIFEST_FILE, BucketStore, Store

MOST_IMAGES_BYTES = 10**9
"""Prepared images that take more stay where they are."""
_NOT_BROUGHT = (".tune", "stop")
"""In a search's folder: what concerns a process there alone."""

SubmitPack = Callable[[dict[str, Any]], str]


def files_of(store: Store, name: str, has: frozenset[str]) -> dict[str, Path]:
    """The files of a search that are brought away, by their paths in a store.

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
    found = {
        file.relative_to(store.root).as_posix(): file
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not unwanted & {file, *file.parents} and not file.name.startswith(".")
    }
    entries = [f"datasets/{search.dataset['prepared']}", *(f"frontends/{record.key}" for record in search.frontends)]
    for entry in entries:
        if entry in has or _size(store, entry) > MOST_IMAGES_BYTES:
            continue
        found |= files_of_entry(store, entry)
    return found


def _size(store: Store, entry: str) -> int:
    """Bytes of an entry, of which nothing is brought here; 0 if it is not there."""
    return sum(facts["bytes"] for facts in (store.files(*entry.split("/")) or {}).values())


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


def copy(there: Store, store: Store, name: str) -> State:
    """Bring a search from a store in a bucket that this machine reaches, as `fetch` does from a cluster.

    Raises:
        UserError: there is no such search there.
        OSError: the bucket can't be read just now.
    """
    state = state_of(there, name)
    files = files_of(there, name, frozenset(_at_hand(store)))
    with tempfile.TemporaryDirectory(prefix=".fetched-", dir=store.root) as folder:
        for path, file in files.items():
            target = Path(folder) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # of a search that runs, and has moved on
                shutil.copy2(file, target)
        _take_in(store, Path(folder), name, runs=state.kind == "running")
    return state


def _at_hand(store: Store) -> list[str]:
    kinds = ("datasets", "frontends")
    return [f"{kind}/{key}" for kind in kinds for key in store.entries(kind) if store.whole(kind, key)]


def _take_in(store: Store, brought: Path, name: str, *, runs: bool) -> None:
    for kind in ("datasets", "frontends"):
        for place in (brought / kind).glob("*"):
            if not store.whole(kind, place.name):
                with store.publish(kind, place.name) as draft:
                    for file in place.iterdir():
                        if file.name != MANIFEST_FILE:
                            file.rename(draft / file.name)
    with at_rest(store, name):
        _replace(store, brought, name)
        if runs:
            note_running_elsewhere(store, name)


def _replace(store: Store, brought: Path, name: str) -> None:
    """Have the search that was brought be the one of that name."""
    if isinstance(store, BucketStore):
        store.discard("searches", name)
    target, aside = store.path("searches", name), brought / "before"
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(aside)
    (brought / "searches" / name).rename(target)
    store.push("searches", name)
    shutil.rmtree(aside, ignore_errors=True)
