"""All that lies in a store, by name and size, and what of it is of no use to anybody: left by writers that were killed.

In a folder that is what has a name with a dot before it: drafts, entries that were set aside or discarded, Ray Tune's
scratch. In a bucket it is what publishers wrote that no manifest names; and there are drafts on this node's own disk.
Not for: whole entries that nobody needs (upkeep/).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from dfd_tune.store import bucket_entries
from dfd_tune.store.bucket import Bucket, Known, each
from dfd_tune.store.in_bucket import BucketStore
from dfd_tune.store.kinds import BACKBONES, CHECKPOINTS, INCOMING, KINDS
from dfd_tune.store.manifests import MANIFEST_FILE
from dfd_tune.store.replica import KNOWN_FILE
from dfd_tune.store.store import STORE_FILE, Store

SCRATCH = ".tune"
"""In a search's folder, Ray Tune's."""
SEARCHES, LEASES = "searches", "leases"
_AT_ROOT = (f".{STORE_FILE}.", ".fetched-")
"""How names of what is left at the store's top begin: it may be a folder that holds other things, too."""


@dataclass(frozen=True)
class Litter:
    """Something that is of no use, unless its writer is still at it."""

    parts: tuple[str, ...]
    """Of its name in the store."""
    what: str
    """A draft, set aside, discarded, scratch, or named by no manifest."""
    bytes: int
    changed: int
    """When the newest of its files was written: nanoseconds since 1970 by the store's clock (`clock_of`)."""
    here: bool
    """Whether it lies in a folder; else in the bucket."""


def listing(store: Store, *parts: str, here: bool = False) -> dict[str, Known]:
    """All files under these parts of a name, hidden ones too, by the rest of their names, with slashes; a file of that
    very name by an empty one.

    Args:
        store: of which.
        parts: what the names begin with.
        here: whether those in this node's folder, too, where the store is in a bucket.

    Raises:
        OSError: it can't be told.
    """
    there = store.bucket.files(*parts) if isinstance(store, BucketStore) else {}
    if isinstance(store, BucketStore) and not here:
        return there
    root = store.path(*parts)
    if root.is_file():
        status = root.stat()
        return there | {"": Known(status.st_size, status.st_mtime_ns)}
    return there | {file.relative_to(root).as_posix(): known for file, known in _walk(root)}


def litter_of(store: Store) -> list[Litter]:
    """What is of no use in a store, however young; sorted by name.

    Raises:
        OSError: it can't be told.
    """
    found = list(_hidden(store.root))
    if isinstance(store, BucketStore):
        found += _unnamed(store.bucket)
    return sorted(found, key=lambda litter: litter.parts)


def remove_litter(store: Store, litter: Litter) -> None:
    """Remove something that `litter_of` has found.

    Raises:
        OSError: it can't be removed.
    """
    if not litter.here:
        assert isinstance(store, BucketStore)
        bucket_entries.discard(store.bucket, *litter.parts)
        return
    place = store.path(*litter.parts)
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place, ignore_errors=True)
    else:
        place.unlink(missing_ok=True)


def clock_of(store: Store, *, here: bool = False) -> int:
    """Now, in nanoseconds since 1970, by the clock that says when files of the store were written.

    Args:
        store: asked by writing to it.
        here: by that of this node's folder, where the store is in a bucket.

    Raises:
        OSError: it can't be written.
    """
    if here or not isinstance(store, BucketStore):
        with tempfile.NamedTemporaryFile(dir=store.root, prefix=_AT_ROOT[0]) as file:
            file.write(b"now")
            file.flush()
            return os.fstat(file.fileno()).st_mtime_ns
    name = f"clock.{uuid.uuid4().hex}"
    store.bucket.write(b"now", LEASES, name)
    known = store.bucket.known(LEASES, name)
    store.bucket.remove(LEASES, name)
    if known is None:
        raise OSError(f"'{LEASES}/{name}' in '{store.location}' was just written and is not there")
    return known.changed


def _walk(folder: Path) -> Iterator[tuple[Path, Known]]:
    """All files below a folder; what goes meanwhile is left out."""
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(Path(entry.path))
            continue
        with contextlib.suppress(FileNotFoundError):
            status = entry.stat(follow_symlinks=False)
            yield Path(entry.path), Known(status.st_size, status.st_mtime_ns)


def _hidden(root: Path) -> Iterator[Litter]:
    for place in root.glob(".*"):
        if place.name.startswith(_AT_ROOT):
            yield from _litter(root, place, "draft")
    for place in (root / INCOMING).glob("*"):
        yield from _litter(root, place, "draft")
    for kind in (*KINDS, CHECKPOINTS, BACKBONES, SEARCHES, LEASES):
        yield from _hidden_in(root, root / kind, deep=kind in (CHECKPOINTS, SEARCHES))


def _hidden_in(root: Path, folder: Path, *, deep: bool) -> Iterator[Litter]:
    try:
        entries = list(os.scandir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    for entry in entries:
        if entry.name.startswith("."):
            if entry.name != KNOWN_FILE:
                yield from _litter(root, Path(entry.path), _what(entry.name))
        elif deep and entry.is_dir(follow_symlinks=False):
            yield from _hidden_in(root, Path(entry.path), deep=True)


def _what(name: str) -> str:
    said = {".set-aside.": "set aside", ".discarded.": "discarded", SCRATCH: "scratch"}
    return next((what for beginning, what in said.items() if name.startswith(beginning)), "draft")


def _litter(root: Path, place: Path, what: str) -> Iterator[Litter]:
    try:
        status = place.stat(follow_symlinks=False)
    except FileNotFoundError:
        return
    below = [known for _, known in _walk(place)] if place.is_dir() else [Known(status.st_size, status.st_mtime_ns)]
    changed = max([status.st_mtime_ns, *(known.changed for known in below)])
    yield Litter(place.relative_to(root).parts, what, sum(known.bytes for known in below), changed, True)


def _unnamed(bucket: Bucket) -> list[Litter]:
    """What publishers wrote to a bucket that no manifest names."""
    written: dict[tuple[str, ...], dict[str, list[Known]]] = {}
    with_manifest = set()
    for kind in (*KINDS, CHECKPOINTS):
        depth = 2 if kind == CHECKPOINTS else 1
        for name, known in bucket.files(kind).items():
            parts = name.split("/")
            entry = (kind, *parts[:depth])
            if parts[depth:] == [MANIFEST_FILE]:
                with_manifest.add(entry)
            elif len(parts) > depth + 1:
                written.setdefault(entry, {}).setdefault(parts[depth], []).append(known)
    # An entry with one publisher alone is that one's: to see so much, its manifest need not be read.
    asked = [entry for entry, publishers in written.items() if entry not in with_manifest or len(publishers) > 1]
    counting = dict(zip(asked, each(lambda entry: bucket_entries.entry_in(bucket, *entry), asked), strict=True))
    return [
        Litter((*entry, publisher), "named by no manifest", *_sums(files), False)
        for entry, counts in counting.items()
        for publisher, files in written[entry].items()
        if counts is None or counts.publisher != publisher
    ]


def _sums(files: list[Known]) -> tuple[int, int]:
    return sum(known.bytes for known in files), max(known.changed for known in files)
