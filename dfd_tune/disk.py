"""What an error of the disk says to a person: which file, whose it is, what is lacking, what to do.

A full or failing disk, a stale handle and a file that is somebody else's are no errors of this program, and need a
sentence, not a traceback, where they end a command. Not for: whether a file counts as damaged (store/files.py), or what
a search does then (search/faults.py).
"""

from __future__ import annotations

import contextlib
import errno
import os
import pwd
import stat
from collections.abc import Iterator
from pathlib import Path

from dfd_tune.errors import UserError, cause_of

FULL = frozenset((errno.ENOSPC, errno.EDQUOT))
FORBIDDEN = frozenset((errno.EACCES, errno.EPERM))
FAILING = frozenset((errno.EIO, errno.ESTALE, errno.EROFS, errno.ENOLCK, errno.ENXIO, errno.ETIMEDOUT, errno.ENOMEM))


def in_words(error: BaseException) -> str | None:
    """What an error says, as one sentence; None of one that is not the disk's."""
    number = error.errno if isinstance(error, OSError) else None
    path = _path_of(error)
    if number in FULL:
        return _of_full_disk(error, path)
    if number in FORBIDDEN:
        return _of_somebody_elses(error, path)
    if number in FAILING:
        what = "The store" if path is None else f"'{path}'"
        return (
            f"{what} can't be read or written just now ({cause_of(error)}); see to it, and give the command again: "
            "nothing was removed."
        )
    return None


@contextlib.contextmanager
def told_in_words() -> Iterator[None]:
    """An error of the disk that leaves the block becomes one for the user.

    Raises:
        UserError: in its place.
    """
    try:
        yield
    except OSError as error:
        if (sentence := in_words(error)) is None:
            raise
        raise UserError(sentence) from None


@contextlib.contextmanager
def naming(path: Path) -> Iterator[None]:
    """Where the disk is full in the block, the error says so of `path`, if it names no file, as of writes it does."""
    try:
        yield
    except OSError as error:
        if error.errno in FULL and error.filename is None:
            error.filename = str(path)
        raise


def free_bytes(path: Path) -> int:
    """What is free on the disk of a file or folder, which need not be there, for who is no administrator."""
    found = os.statvfs(_there(path))
    return found.f_bavail * found.f_frsize


def size_in_words(count: float) -> str:
    """A number of bytes, as "3.1 MB"."""
    for unit, limit in (("kB", 1e6), ("MB", 1e9), ("GB", 1e12)):
        if count < limit:
            return f"{count / (limit / 1e3):.1f} {unit}"
    return f"{count / 1e12:.1f} TB"


def _path_of(error: BaseException) -> Path | None:
    name = getattr(error, "filename", None)
    return Path(os.fsdecode(name)) if isinstance(name, str | bytes) else None


def _of_full_disk(error: BaseException, path: Path | None) -> str:
    what, free = "The disk", ""
    if path is not None:
        what = f"The disk of '{path}'"
        with contextlib.suppress(OSError):
            free = f"; {size_in_words(free_bytes(path))} free now"
    return (
        f"{what} is full ({cause_of(error)}{free}); make room there, and give the command again: what is finished is "
        "kept."
    )


def _of_somebody_elses(error: BaseException, path: Path | None) -> str:
    if path is None:
        return f"A file can't be used ({cause_of(error)}); see whose it is."
    blocks = _what_blocks(path)
    owner, mine = _name(blocks.lstat().st_uid), _name(os.geteuid())
    whose = "is yours, but may not be used as its mode is" if owner == mine else f"belongs to {owner}"
    whom = "" if owner == mine else f", and {mine} may not use it"
    return (
        f"'{blocks}' {whose}{whom} ({cause_of(error)}); have {owner} or an administrator run "
        f"`chmod -R a+rwX '{blocks}'`, or name a store of your own with --store."
    )


def _what_blocks(path: Path) -> Path:
    """The first folder on the way to a file that may not be entered; where the file is not there, the folder that is
    to hold it; else the file."""
    before = Path(path.anchor or ".")
    for part in (*reversed(path.parents), path):
        try:
            status = part.lstat()
        except OSError:
            return before
        if stat.S_ISDIR(status.st_mode) and not os.access(part, os.X_OK):
            return part
        before = part
    return path


def _there(path: Path) -> Path:
    """The path, or the folder nearest to it that is there."""
    return next((part for part in (path, *path.parents) if part.exists()), Path("."))


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"user {user}"
