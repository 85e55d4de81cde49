"""Files that appear whole or not at all, and what an error of the disk says of them.

Not for: entries of a store (store.py), nor for what a store's files mean.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from dfd_tune.disk import free_bytes, naming, size_in_words
from dfd_tune.store.seals import object_in

STALE_PAUSES = (0.05, 0.2, 0.8)
"""Seconds before a read is tried again whose handle was stale, as where another host has replaced the file."""

Found = TypeVar("Found")


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A file to write beside `path`; when the block ends without an error it goes to the disk and takes that place.

    Its folder is made if need be. A killed writer leaves a file whose name begins with a dot.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    os.close(handle)
    draft = Path(name)
    try:
        with naming(path):
            yield draft
            draft.chmod(0o644)
            sync(draft)
            draft.replace(path)
            sync(path.parent)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON file atomically."""
    write_text(path, as_json(value))


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    with replacing(path) as draft:
        draft.write_text(text, encoding="utf-8")


def as_json(value: Mapping[str, Any]) -> str:
    """The text of a JSON file."""
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def create_text(path: Path, text: str) -> bool:
    """Write a text file atomically unless it is there: of several who do so at once, the first one's stays.

    Returns:
        False on a file system that can't do this, as it has no hard links.
    """
    handle, draft = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(draft, 0o644)
        with contextlib.suppress(FileExistsError):
            os.link(draft, path)
    except OSError:
        return False
    finally:
        Path(draft).unlink(missing_ok=True)
    return True


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a JSON file; None if there is no such file.

    Raises:
        ValueError: it holds none, or not what was sealed there.
        OSError: it can't be read just now.
    """
    try:
        text = steadily(lambda: path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    return object_in(text)


def steadily(read: Callable[[], Found]) -> Found:
    """What `read` gives, which is called again a few times where a handle is stale: the name leads to a new one."""
    for pause in STALE_PAUSES:
        try:
            return read()
        except OSError as error:
            if error.errno != errno.ESTALE:
                raise
        time.sleep(pause)
    return read()


def reserve(path: Path) -> None:
    """Have the disk hold room for all of a file that may have holes, which is open or will be mapped.

    Raises:
        OSError: ENOSPC where there is too little room, with what is needed and what is free.
    """
    handle = os.open(path, os.O_RDWR)
    try:
        size = os.fstat(handle).st_size
        free = free_bytes(path)
        _allocate(handle, size)
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        text = f"'{path.name}' needs {size_in_words(size)}, and {size_in_words(free)} were free"
        raise OSError(error.errno, text) from None
    finally:
        os.close(handle)


def _allocate(handle: int, size: int) -> None:
    try:
        os.posix_fallocate(handle, 0, size)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
            raise
        _fill_holes(handle, size)


def _fill_holes(handle: int, size: int) -> None:
    """Write every byte as it reads, where the file system can't reserve."""
    for start in range(0, size, 1 << 20):
        os.pwrite(handle, os.pread(handle, min(1 << 20, size - start), start), start)


def sync(path: Path) -> None:
    """Have a file's content, or a folder's list of names, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        # Some network file systems know no such thing for folders.
        if not path.is_dir() or error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(handle)


def is_passing(error: OSError) -> bool:
    """Whether an error says that something can't be read just now, and not that it is missing or damaged.

    Libraries raise an OSError without a number where they do not understand a file's content.
    """
    return error.errno not in (None, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL)
