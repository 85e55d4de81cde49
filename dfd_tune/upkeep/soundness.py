"""Every entry of a store held against its manifest, digest by digest, and every record read.

Not for: looks at sizes alone, which whoever opens an entry takes (store/manifests.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path, PurePosixPath

from dfd_tune.digest import DIGITS
from dfd_tune.errors import cause_of
from dfd_tune.liveness import state_of
from dfd_tune.locks import HeldError
from dfd_tune.record import BEST_FOLDER, unreadable_records
from dfd_tune.store import (
    BACKBONES,
    CHECKPOINTS,
    KINDS,
    RESULT_FILE,
    STUDENT_FILE,
    BucketStore,
    Store,
    damages_in,
    is_passing,
    listing,
)


@dataclass(frozen=True)
class Fault:
    """Something that is not as it was written."""

    parts: tuple[str, ...]
    """Of its name in the store."""
    problems: tuple[str, ...]
    """In phrases."""
    passing: bool = False
    """Whether it could not be read just now, which says nothing of what it holds."""

    def __str__(self) -> str:
        return f"{'/'.join(self.parts)}: {', '.join(self.problems)}"


@dataclass
class Checked:
    """What came of a kind of entries, or of the records of all searches."""

    kind: str
    entries: int = 0
    faults: list[Fault] = field(default_factory=list)


def check(store: Store) -> Iterator[Checked]:
    """Read all that has a digest, kind by kind, and all records; each kind is given once it has been read.

    Raises:
        OSError: what a kind holds can't be told just now.
    """
    for kind in KINDS:
        yield _checked(store, kind, [(kind, key) for key in store.entries(kind)])
    trainings = _trainings(store)
    yield _checked(
        store,
        CHECKPOINTS,
        [(CHECKPOINTS, key, epoch) for key in trainings for epoch in store.entries(CHECKPOINTS, key)],
    )
    yield _backbones(store)
    yield _searches(store)


def put_aside(store: Store, fault: Fault) -> bool:
    """Move what is damaged away, so that it is made anew where it is needed; of a trial whose student alone is damaged,
    that goes, and the result stays. Returns whether it was done: not if somebody is at it, or has mended it.

    Raises:
        OSError: the store can't be read just now, or not be written.
    """
    kind, key = fault.parts[:2]
    if fault.passing or kind not in (*KINDS, CHECKPOINTS):
        return False
    try:
        with store.claim(f"{kind}-{key}", patience=0):
            if not store.damages(*fault.parts):
                return False
            if kind == "trials" and store.content(kind, key, RESULT_FILE) is not None:
                store.let_go(kind, key, STUDENT_FILE)
                if not store.damages(kind, key):
                    return True
            return store.set_aside(*fault.parts)
    except HeldError:
        return False


def _fault(parts: tuple[str, ...], damages: Callable[[], list[str]]) -> Fault | None:
    try:
        problems = damages()
    except OSError as error:
        if not is_passing(error):
            raise
        return Fault(parts, (f"it can't be read just now ({cause_of(error)})",), passing=True)
    return Fault(parts, tuple(problems)) if problems else None


def _checked(store: Store, kind: str, entries: list[tuple[str, ...]]) -> Checked:
    def look(parts: tuple[str, ...]) -> Fault | None:
        return _fault(parts, lambda: store.damages(*parts))

    return Checked(kind, len(entries), [fault for fault in store.each(look, entries) if fault is not None])


def _trainings(store: Store) -> list[str]:
    return [name for name in store.names(CHECKPOINTS) if not name.startswith(".")]


def _backbones(store: Store) -> Checked:
    """Texts are named by their digests."""
    names = _texts(store)
    found = Checked(BACKBONES, len(names))
    for name in names:
        try:
            text = store.read_text(BACKBONES, name)
        except UnicodeDecodeError:
            text = ""
        if text is not None and hashlib.sha256(text.encode()).hexdigest()[:DIGITS] != PurePosixPath(name).stem:
            found.faults.append(Fault((BACKBONES, name), ("it is not the text that its name tells",)))
    return found


def _texts(store: Store) -> list[str]:
    return sorted(name for name in listing(store, BACKBONES) if name.endswith(".py") and not name.startswith("."))


def _searches(store: Store) -> Checked:
    """Records, and the best student of each."""
    found = Checked("searches")
    with _anew(store) as seen:
        for name in store.names("searches"):
            seen.pull("searches", name)
            found.entries += 1
            for file, cause in unreadable_records(seen, name):
                parts = file.relative_to(seen.root).parts
                found.faults.append(Fault(parts, (f"this record can't be read ({cause})",)))
            parts = ("searches", name, BEST_FOLDER)
            best = _fault(parts, partial(damages_in, seen.path(*parts)))
            if best is not None and state_of(store, name).kind != "running":  # which may be writing it
                found.faults.append(best)
    return found


@contextlib.contextmanager
def _anew(store: Store) -> Iterator[Store]:
    """The store; of one in a bucket, without what this node has of its searches already, which may be as it was."""
    if not isinstance(store, BucketStore):
        yield store
        return
    with tempfile.TemporaryDirectory(prefix=".fetched-", dir=store.root) as folder:
        yield dataclasses.replace(store, root=Path(folder))
