"""Locks between processes, also of several hosts that share a folder, held by the operating system.

A process that dies lets go of them at once. Where a folder has no such locks, that is said; nothing else is put in
their place, as a lock file whose holder is dead would block for ever. Not for: what is locked (store.py, liveness.py).
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import logging
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from dfd_tune.errors import UserError, cause_of
from dfd_tune.machine import Process, this_process

Say = Callable[[str], None]

SAY_AFTER_SECONDS = 3.0
"""A wait that is longer than this is told of, with who holds the lock."""
POLL_SECONDS = (0.02, 0.5)
"""How often a held lock is asked for: at first, and after a while."""

_HELD = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EACCES}
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP}


class NoLocksError(UserError):
    """The folder's file system has no locks."""


class HeldError(Exception):
    """Somebody else holds the lock, and went on holding it."""

    def __init__(self, holder: Holder | None):
        super().__init__(holder)
        self.holder = holder


@dataclass(frozen=True)
class Holder:
    """Who holds a lock."""

    process: Process
    since: float
    """Seconds since 1970, by the holder's clock."""

    def __str__(self) -> str:
        return f"{self.process} since {when(self.since)}"


@contextlib.contextmanager
def holding(file: Path, *, patience: float | None = None, say: Say | None = None) -> Iterator[None]:
    """Hold the lock on `file`, which is made if it is not there and stays; waits for it.

    Who holds it stands beside it, in `<file>.holder`, as JSON.

    Args:
        file: in a folder that is there.
        patience: seconds to wait; None waits for as long as it takes.
        say: is told on whom it waits, if it takes long; None tells the log.

    Raises:
        HeldError: it was still held after `patience`.
        NoLocksError: the folder has no locks.
    """
    descriptor = _open(file)
    try:
        _acquire(descriptor, file, patience, say or logging.getLogger("dfd_tune").warning)
        note = _note_of(file)
        _write(note, Holder(this_process(), time.time()))
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                note.unlink()
    finally:
        os.close(descriptor)


def is_held(file: Path) -> bool:
    """Whether somebody holds the lock on `file`. Needs no right to write.

    The question itself holds the lock, shared, for a moment; who wants it then must ask again, as `holding` does
    where it has patience.

    Raises:
        NoLocksError: the folder has no locks.
    """
    import fcntl

    try:
        descriptor = os.open(file, os.O_RDONLY)
    except FileNotFoundError:
        return False
    try:
        return not _taken(descriptor, file, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def holder_of(file: Path) -> Holder | None:
    """Who holds the lock on `file`, or held it when it died; None if that is not known."""
    try:
        value = json.loads(_note_of(file).read_text(encoding="utf-8"))
        return Holder(Process(**value["process"]), float(value["since"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None


def when(seconds: float) -> str:
    """A moment, given in seconds since 1970, in this machine's time."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _open(file: Path) -> int:
    try:
        return os.open(file, os.O_RDWR | os.O_CREAT, 0o666)
    except PermissionError:
        if not file.exists():
            raise  # it is the folder in which none can be made
        return os.open(file, os.O_RDONLY)  # another user's, which most file systems let us lock all the same


def _acquire(descriptor: int, file: Path, patience: float | None, say: Say) -> None:
    import fcntl

    began = time.monotonic()
    pause, told = POLL_SECONDS[0], False
    while not _taken(descriptor, file, fcntl.LOCK_EX):
        waited = time.monotonic() - began
        if patience is not None and waited >= patience:
            raise HeldError(holder_of(file))
        if not told and waited >= SAY_AFTER_SECONDS:
            say(f"Waiting for '{file.stem}', which is in the hands of {holder_of(file) or 'another process'}.")
            told = True
        time.sleep(pause)
        pause = min(pause * 1.5, POLL_SECONDS[1])


def _taken(descriptor: int, file: Path, kind: int) -> bool:
    import fcntl

    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        if error.errno in _NO_LOCKS:
            raise NoLocksError(
                f"The folder '{file.parent}' has no file locks ({cause_of(error)}), so two processes could spoil each "
                "other's work; have it mounted with locks (NFS: not `nolock`; Lustre: `flock`), or name another "
                "folder with --store."
            ) from None
        if error.errno == errno.EBADF:  # NFS locks for writing only what may be written
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file)) from None
        raise
    return True


def _note_of(file: Path) -> Path:
    return file.with_name(f"{file.stem}.holder")


def _write(note: Path, holder: Holder) -> None:
    draft = note.with_name(f".{note.name}.{holder.process.host}.{holder.process.pid}")
    with contextlib.suppress(OSError):  # a courtesy to those who wait: a full disk is for the holder to stumble on
        draft.write_text(json.dumps(dataclasses.asdict(holder)), encoding="utf-8")
        os.replace(draft, note)
