"""A node's own copies of what trainings read from a store that lies elsewhere: copied once, checked by digest.

Trainings read rows at random, which nothing behind a network is good at. Where `Store.copies` names a folder on a disk
of the node, as it always does where the store is in a bucket, an entry is copied there before it is read:

    <root>/<kind>-<digest>/<key>/    the entry's files and its manifest
    <root>/<kind>-<digest>/copy.json which entry it is, and what its files looked like when they were checked
    <root>/locks/                    lock files, empty

The digest is that of the entry's manifest, so one that is made anew is another one, and stores that hold the same share
a copy. What is damaged in the store is not copied, and counts as damaged. Where room is lacking, what was used longest
ago goes. Not for: writing entries, which go to the store itself (store.py); what files mean.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import RawIOBase
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

from dfd_tune.digest import digest_json
from dfd_tune.disk import size_in_words
from dfd_tune.errors import UserError, cause_of
from dfd_tune.locks import HeldError, NoLocksError, holding
from dfd_tune.store.files import is_passing, read_json, sync, write_json
from dfd_tune.store.manifests import MANIFEST_FILE, Files, manifest_of, sound, whole

NOTE_FILE = "copy.json"
CHUNK_BYTES = 1 << 20
FREE_SHARE, FREE_BYTES = 0.05, 2_000_000_000
"""The smaller of the two is left free on the disk: Ray gives a node no more work whose disk is 95 % full."""

_DRAFT = ".copying."
_LOCKS = "locks"
_log = logging.getLogger("dfd_tune")


@dataclass(frozen=True)
class Copies:
    """Where a node keeps copies of what it reads from a store."""

    root: Path
    """A folder on a disk of the node's own; absolute, but for a `~`."""
    budget: int | None = None
    """Bytes that they may take in all; None lets them fill the disk, but for a little."""


class Original(Protocol):
    """An entry as it lies in the store, to be copied. Its text names it in messages."""

    def files(self) -> Files | None:
        """What its manifest says, if all files have the sizes that it says; else None."""
        ...

    def open(self, name: str) -> RawIOBase:
        """One of its files."""
        ...


@dataclass(frozen=True)
class OriginalFolder:
    """An entry in a folder that several nodes share."""

    folder: Path

    def files(self) -> Files | None:
        """What its manifest says, if all files have the sizes that it says; else None."""
        return manifest_of(self.folder) if whole(self.folder) else None

    def open(self, name: str) -> RawIOBase:
        """One of its files."""
        return (self.folder / name).open("rb", buffering=0)

    def __str__(self) -> str:
        return str(self.folder)


@contextlib.contextmanager
def near(original: Original, copies: Copies, kind: str, key: str) -> Iterator[Path | None]:
    """The folder of this node's copy of an entry, made if need be.

    The copy stays as long as the block lasts. What is mapped into memory by then can be read afterwards too. An entry
    that is missing or damaged in the store gives None, even if there is a copy; one that is found to be damaged as it
    is copied gives a folder that is not there.

    Args:
        original: the entry.
        copies: where this node keeps them.
        kind: folder of the store.
        key: name of the entry in it; the copy's folder has it too.

    Raises:
        OSError: the store can't be read just now, or the node's disk not be written; ENOSPC where it has no room.
        NoLocksError: the folder for copies has no locks.
    """
    files = original.files()
    if files is None:
        yield None
        return
    root = copies.root.expanduser()
    copy = _place(root, kind, key, files)
    with _held(copy):
        if not _is_good(copy, key, files):
            with holding(_room_lock(root), say=_log.info):
                _clear(root, copy)
                _make_room(root, copies.budget, _bytes(files), str(original))
                if not _made(copy, key, original, files):
                    _log.warning(
                        "'%s' is damaged: its files are not those that its manifest names; remove that entry to have "
                        "it made anew at the next launch.",
                        original,
                    )
        with contextlib.suppress(FileNotFoundError):
            os.utime(copy)  # by which the longest unused one is found
        yield copy / key


def adopt(draft: Path, files: Files, copies: Copies, kind: str, key: str) -> None:
    """Make a copy of the folder that an entry was just published from, by a rename; what needs no bringing back.

    Does nothing where there is no room. The draft has its manifest, and lies on the disk of the copies.

    Args:
        draft: the folder; gone afterwards, if it became the copy.
        files: what its manifest says.
        copies: where this node keeps them.
        kind: folder of the store.
        key: name of the entry in it.
    """
    root = copies.root.expanduser()
    copy = _place(root, kind, key, files)
    with _held(copy), holding(_room_lock(root), say=_log.info), contextlib.suppress(OSError):
        _clear(root, copy)
        if copies.budget is not None:
            _make_room(root, copies.budget, _bytes(files), str(copy))
        beside = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=root))
        draft.rename(beside / key)
        _finish(beside, copy, key, files, str(copy))


def _bytes(files: Files) -> int:
    return sum(facts["bytes"] for facts in files.values())


def _place(root: Path, kind: str, key: str, files: Files) -> Path:
    return root / f"{kind}-{digest_json({'entry': [kind, key], 'files': files})}"


@contextlib.contextmanager
def _held(copy: Path) -> Iterator[None]:
    (copy.parent / _LOCKS).mkdir(parents=True, exist_ok=True)
    with holding(_lock_of(copy), say=_log.info):
        yield


def check_copies(copies: Copies) -> None:
    """See whether this node can keep copies there.

    Raises:
        UserError: the folder's path is not absolute, or it can't be written here, or has no locks.
    """
    root = copies.root.expanduser()
    if not root.is_absolute():
        raise UserError(f"The folder for each node's copies is '{copies.root}', but must be an absolute path.")
    try:
        (root / _LOCKS).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=root), holding(_room_lock(root), patience=0):
            return
    except HeldError:
        return  # by somebody who copies
    except NoLocksError:
        problem = "it has no file locks"
    except OSError as error:
        problem = cause_of(error)
    raise UserError(
        f"The folder '{root}' for this node's copies can't be used ({problem}); name one on a disk of the node's own, "
        "that can be written."
    )


def _lock_of(copy: Path) -> Path:
    return copy.parent / _LOCKS / f"{copy.name}.lock"


def _room_lock(root: Path) -> Path:
    return root / _LOCKS / "room.lock"


def _is_good(copy: Path, key: str, files: Files) -> bool:
    """Whether the copy is what it should be. Its files are read only if they were touched since they were checked."""
    entry, note = copy / key, _note_in(copy)
    if note is None or manifest_of(entry) != files or not whole(entry):
        return False
    if note["files"] != _looks(entry, files):
        if not sound(entry):
            return False
        write_json(copy / NOTE_FILE, note | {"files": _looks(entry, files)})
    return True


def _looks(entry: Path, files: Files) -> dict[str, list[int]]:
    """What tells without reading it that a file was not touched, by name."""
    found = {name: (entry / name).stat() for name in files}
    return {name: [status.st_size, status.st_mtime_ns, status.st_ctime_ns] for name, status in found.items()}


def _note_in(copy: Path) -> dict[str, Any] | None:
    try:
        note = read_json(copy / NOTE_FILE)
        return note if note is not None and {"bytes", "files"} <= note.keys() else None
    except OSError as error:
        if is_passing(error):
            raise
        return None
    except ValueError:
        return None


def _clear(root: Path, copy: Path) -> None:
    """Remove a copy that is no good, and what killed processes left: who holds the lock on room is alone in copying."""
    for left in (copy, *root.glob(f"{_DRAFT}*")):
        shutil.rmtree(left, ignore_errors=True)


def _make_room(root: Path, budget: int | None, need: int, what: str) -> None:
    """Have room for `need` bytes more; what was used longest ago goes, unless somebody is about to open it.

    Raises:
        OSError: ENOSPC, there is too little room. Nothing goes in vain.
    """
    copies = sorted((note.parent for note in root.glob(f"*/{NOTE_FILE}")), key=lambda copy: copy.stat().st_mtime_ns)
    sizes = {copy: int((_note_in(copy) or {"bytes": 0})["bytes"]) for copy in copies}

    def lacking() -> float:
        disk = shutil.disk_usage(root)
        by_disk = need + min(FREE_SHARE * disk.total, FREE_BYTES) - disk.free
        return by_disk if budget is None else max(by_disk, need + sum(sizes.values()) - budget)

    if lacking() <= sum(sizes.values()):
        for copy in copies:
            if lacking() <= 0:
                return
            with contextlib.suppress(HeldError), holding(_lock_of(copy), patience=0):
                shutil.rmtree(copy, ignore_errors=True)
                del sizes[copy]
    if lacking() > 0:
        free = size_in_words(shutil.disk_usage(root).free)
        bound = "" if budget is None else f" and a bound of {size_in_words(budget)}"
        text = f"a copy of '{what}' needs {size_in_words(need)}, beside {free} free{bound}"
        raise OSError(errno.ENOSPC, text, str(root))


def _made(copy: Path, key: str, original: Original, files: Files) -> bool:
    """Copy an entry, which appears whole or not at all; False if it is not what its manifest says."""
    draft = Path(tempfile.mkdtemp(prefix=_DRAFT, dir=copy.parent))
    try:
        entry = draft / key
        entry.mkdir()
        if not all(_copied(original, entry, name, facts["sha256"]) for name, facts in files.items()):
            return False
        write_json(entry / MANIFEST_FILE, {"files": files})
        _finish(draft, copy, key, files, str(original))
        return True
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _finish(draft: Path, copy: Path, key: str, files: Files, what: str) -> None:
    """Give the folder in which a whole entry lies its note, and its place."""
    write_json(draft / NOTE_FILE, {"entry": what, "bytes": _bytes(files), "files": _looks(draft / key, files)})
    draft.chmod(0o755)
    draft.rename(copy)


def _copied(original: Original, entry: Path, name: str, sha256: str) -> bool:
    """Copy a file, and have it on the disk; False if it is not there or another one."""
    if PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
        return False
    try:
        source = original.open(name)
    except OSError as error:
        if is_passing(error):
            raise
        return False
    digest = hashlib.sha256()
    (entry / name).parent.mkdir(parents=True, exist_ok=True)
    with source, (entry / name).open("wb") as file:
        while chunk := source.read(CHUNK_BYTES):
            digest.update(chunk)
            file.write(chunk)
    sync(entry / name)
    return digest.hexdigest() == sha256
